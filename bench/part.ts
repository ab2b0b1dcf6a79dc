import type { Result } from './rounds.ts'
import type { Table } from './table.ts'
import type { World } from './world.ts'

/** A part of the benchmark. */
export interface Part {
  /** For `--only`. */
  readonly name: string
  /** Whether it runs when no part is named. */
  readonly isDefault: boolean
  /** Measures; throws when something was not as it should be. */
  run(world: World): Promise<Finding>
}

/** What a part found out. */
export interface Finding {
  readonly tables: readonly Table[]
  /** Everything that was measured, for `--json`. */
  readonly results: readonly Result[]
  /** Single figures by name, for `--must-show`. */
  readonly figures: Readonly<Record<string, number>>
}
