/** Calls back once, when `ms` have passed in which it did not stand still. It runs from the start. */
export class StoppableTimer {
  readonly #now: () => number
  readonly #onEnd: () => void
  #leftMs: number
  #sinceMs = 0
  #timer: NodeJS.Timeout | undefined

  /** `now` is in milliseconds. */
  constructor(ms: number, now: () => number, onEnd: () => void) {
    this.#leftMs = ms
    this.#now = now
    this.#onEnd = onEnd
    this.resume()
  }

  /** Lets it stand still, with what is left. For good, unless it is resumed. */
  stop(): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    // A clock that was set back gives nobody more time.
    this.#leftMs -= Math.max(0, this.#now() - this.#sinceMs)
  }

  resume(): void {
    if (this.#timer !== undefined) return
    this.#sinceMs = this.#now()
    this.#timer = setTimeout(this.#onEnd, Math.max(0, this.#leftMs))
  }
}
