import type { Mode, Parser } from '../config-parsers.ts'

/**
 * One environment variable. `T` is what the rest of the code gets: an optional variable has `undefined` in it.
 * An empty variable counts as absent, so that a compose file may pass on what its shell did not set.
 */
export interface Variable<T> {
  readonly name: string
  readonly group: Group
  readonly parser: Parser<T>
  /** Value when absent. */
  readonly defaults: Readonly<Record<Mode, T>>
  readonly description: string
  /** Other names, read when `name` is absent. */
  readonly aliases: readonly string[]
  readonly unit: 'milliseconds' | 'bytes' | undefined
  /** True for values that no message may show. */
  readonly secret: boolean
}

/** Heading of docs/configuration.md that a variable stands under. */
export type Group = 'Server' | 'Storage' | 'Backends' | 'Access' | 'Tokens' | 'Events' | 'Registry' | 'Observability'

interface Named {
  readonly name: string
  readonly group: Group
  readonly description: string
  readonly aliases?: readonly string[]
  readonly unit?: 'milliseconds' | 'bytes'
  readonly secret?: boolean
}

/** A variable that always has a value. */
export function setting<T>(
  parser: Parser<T>,
  options: Named & { default: NoInfer<T>; devDefault?: NoInfer<T> },
): Variable<T> {
  return {
    name: options.name,
    group: options.group,
    parser,
    defaults: { dev: options.devDefault ?? options.default, serve: options.default },
    description: options.description,
    aliases: options.aliases ?? [],
    unit: options.unit,
    secret: options.secret ?? false,
  }
}

/** A variable that may be absent. */
export function optional<T>(parser: Parser<T>, options: Named): Variable<T | undefined> {
  return setting<T | undefined>(parser, { ...options, default: undefined })
}
