import type { Logger } from 'pino'
import { countsOf, type Figures, mergeFigures } from '../telemetry/merge-figures.ts'
import { within } from '../within.ts'

/** A worker that can be asked. */
export interface Asked {
  /** Of one process, never used again. */
  readonly id: number
  readonly slot: number
  figures(): Promise<Figures>
}

export interface AllFiguresOptions {
  readonly asked: () => readonly Asked[]
  /** Of the primary itself; given the number of workers that did not answer. */
  readonly own: (silent: number) => Promise<Figures>
  readonly log: Logger
  /** Longest wait for a worker. Default 2.5 s: it asks its own sources for a second each. */
  readonly timeoutMs?: number
}

/**
 * The metrics of all workers as those of one. A sum never falls, or whoever reads it would take it for a restart of the
 * whole gate: what a worker that is gone counted stays in, and one that does not answer in time stands with what it last
 * said. What a killed worker counted after the last page was on no page.
 */
export class AllFigures {
  readonly #options: AllFiguresOptions
  readonly #latest = new Map<number, Figures>()
  /** Counts of those that are gone. */
  #gone: Figures = []
  #folding: Promise<void> = Promise.resolve()
  #gathering: Promise<string> | undefined

  constructor(options: AllFiguresOptions) {
    this.#options = options
  }

  /** One page for all who ask meanwhile. */
  page(): Promise<string> {
    this.#gathering ??= this.#gather().finally(() => {
      this.#gathering = undefined
    })
    return this.#gathering
  }

  /** The last figures of a worker that leaves. */
  farewell(id: number, figures: Figures): void {
    this.#latest.set(id, figures)
  }

  /** A worker is gone: its counts stay. */
  ended(id: number): void {
    const latest = this.#latest.get(id)
    if (latest === undefined) return
    this.#latest.delete(id)
    this.#gone = [...this.#gone, ...countsOf(latest)]
    this.#folding = this.#folding.then(async () => {
      const { length } = this.#gone
      const folded = await mergeFigures([this.#gone]).getMetricsAsJSON()
      // Others may have gone meanwhile.
      this.#gone = [...folded, ...this.#gone.slice(length)]
    })
  }

  async #gather(): Promise<string> {
    const { asked, own, log, timeoutMs = 2_500 } = this.#options
    const answered = new Set<number>()
    const all = asked()
    await Promise.all(
      all.map(async (worker) => {
        try {
          this.#latest.set(worker.id, await within(timeoutMs, worker.figures()))
          answered.add(worker.id)
        } catch {
          log.warn({ worker: worker.slot }, 'a worker did not tell its metrics in time')
        }
      }),
    )
    const mine = await own(all.length - answered.size)
    // Looked at in one step: whoever left since it answered is among the gone.
    const living = [...this.#latest].map(([id, figures]) => (answered.has(id) ? figures : countsOf(figures)))
    return mergeFigures([mine, this.#gone, ...living]).metrics()
  }
}
