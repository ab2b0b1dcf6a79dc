import { PassingLine, type Place } from '../passing-line.ts'

/** Somebody's waiting, until it passes or is given up. */
export type Waiting<T> = Place<Due<T>>

interface Due<T> {
  readonly who: T
  /** By `performance.now`. */
  readonly atMs: number
}

/**
 * One timer for many that wait for the same length of time, nearly always in vain: for a deadline, for a body. Beginning and
 * giving up is a place in a line; a timer of Node's for each costs about 2 µs more. The timer is set for whoever has waited
 * longest, and is gone when nobody waits. Never early, and as late as Node's timers are.
 */
export class SharedTimeout<T> {
  readonly ms: number
  readonly #onPassed: (who: T) => void
  /** In the order in which they began, which is that in which they are due. */
  readonly #line = new PassingLine<Due<T>>()
  #timer: NodeJS.Timeout | undefined

  /** @param onPassed must not throw; it may be told of somebody who was given up by what it did for another one. */
  constructor(ms: number, onPassed: (who: T) => void) {
    this.ms = ms
    this.#onPassed = onPassed
  }

  start(who: T): Waiting<T> {
    this.#timer ??= setTimeout(this.#onTime, this.ms)
    return this.#line.add({ who, atMs: performance.now() + this.ms })
  }

  /** Gives up, unless it has passed or was given up before. */
  stop(waiting: Waiting<T>): void {
    if (!this.#line.leave(waiting) || this.#line.size > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #onTime = (): void => {
    this.#timer = undefined
    const nowMs = performance.now()
    const passed: T[] = []
    for (;;) {
      const { first } = this.#line
      if (first?.value === undefined) break
      const { who, atMs } = first.value
      if (atMs > nowMs) {
        this.#timer = setTimeout(this.#onTime, Math.ceil(atMs - nowMs))
        break
      }
      this.#line.leave(first)
      passed.push(who)
    }
    for (const who of passed) this.#onPassed(who)
  }
}
