import { PassingMap } from '../passing-map.ts'

/**
 * One timer for many that wait for the same length of time, nearly always in vain: for a deadline, for a body. Beginning and
 * giving up is an entry in a map; a timer of Node's for each costs about 2 µs more. The timer is set for whoever has waited
 * longest, and is gone when nobody waits. Never early, and as late as Node's timers are.
 */
export class SharedTimeout<T extends { readonly id: string }> {
  readonly ms: number
  readonly #onPassed: (waiting: T) => void
  /** By `performance.now`. In the order in which they began, which is that in which they are due. */
  readonly #waiting = new PassingMap<string, Waiting<T>>()
  #timer: NodeJS.Timeout | undefined

  /** @param onPassed must not throw. */
  constructor(ms: number, onPassed: (waiting: T) => void) {
    this.ms = ms
    this.#onPassed = onPassed
  }

  /** Begins the time of `waiting`, which does not wait yet. */
  start(waiting: T): void {
    this.#waiting.set(waiting.id, { waiting, dueAtMs: performance.now() + this.ms })
    this.#timer ??= setTimeout(this.#onTime, this.ms)
  }

  /** Gives up, if it waits at all. */
  stop(waiting: T): void {
    if (!this.#waiting.delete(waiting.id) || this.#waiting.size > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #onTime = (): void => {
    this.#timer = undefined
    const nowMs = performance.now()
    const passed: T[] = []
    for (const { waiting, dueAtMs } of this.#waiting.values()) {
      if (dueAtMs > nowMs) {
        this.#timer = setTimeout(this.#onTime, Math.ceil(dueAtMs - nowMs))
        break
      }
      passed.push(waiting)
    }
    for (const waiting of passed) if (this.#waiting.delete(waiting.id)) this.#onPassed(waiting)
  }
}

interface Waiting<T> {
  readonly waiting: T
  readonly dueAtMs: number
}
