/**
 * One timer for many that wait for the same length of time, nearly always in vain: for a deadline, for a body. Beginning and
 * giving up is an entry in a Map; a timer of Node's for each costs about 2 µs more. The timer is set for whoever has waited
 * longest, and is gone when nobody waits. Never early, and as late as Node's timers are.
 */
export class SharedTimeout<T> {
  readonly ms: number
  readonly #onPassed: (waiting: T) => void
  /** By `performance.now`. In the order in which they began, which is that in which they are due. */
  readonly #dueAtMs = new Map<T, number>()
  #timer: NodeJS.Timeout | undefined

  /** @param onPassed must not throw. */
  constructor(ms: number, onPassed: (waiting: T) => void) {
    this.ms = ms
    this.#onPassed = onPassed
  }

  /** Begins the time of `waiting`, which does not wait yet. */
  start(waiting: T): void {
    this.#dueAtMs.set(waiting, performance.now() + this.ms)
    this.#timer ??= setTimeout(this.#onTime, this.ms)
  }

  /** Gives up, if it waits at all. */
  stop(waiting: T): void {
    if (!this.#dueAtMs.delete(waiting) || this.#dueAtMs.size > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #onTime = (): void => {
    this.#timer = undefined
    const nowMs = performance.now()
    const passed: T[] = []
    for (const [waiting, dueAtMs] of this.#dueAtMs) {
      if (dueAtMs > nowMs) {
        this.#timer = setTimeout(this.#onTime, Math.ceil(dueAtMs - nowMs))
        break
      }
      passed.push(waiting)
    }
    for (const waiting of passed) if (this.#dueAtMs.delete(waiting)) this.#onPassed(waiting)
  }
}
