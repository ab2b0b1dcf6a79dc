import type { Logger } from 'pino'
import type { SegmentWatcher } from './segment-log.ts'

/** Whether the usage log of this process can be written. Tells operators when that changes. */
export class UsageLogHealth implements SegmentWatcher {
  readonly #log: Logger
  #failure: string | undefined

  constructor(log: Logger) {
    this.#log = log
  }

  /** What the last records failed with; undefined while all is well. */
  get failure(): string | undefined {
    return this.#failure
  }

  works(): void {
    if (this.#failure === undefined) return
    this.#failure = undefined
    this.#log.info('usage log can be written again')
  }

  failed(error: unknown): void {
    const problem = problemOf(error)
    if (this.#failure === undefined) this.#log.error({ problem }, 'usage log cannot be written')
    this.#failure = problem
  }
}

export function problemOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown problem'
}
