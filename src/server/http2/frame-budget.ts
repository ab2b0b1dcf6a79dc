/**
 * Bounds how often something may happen that costs this side more than the peer: so many at once, and so many a second from
 * then on.
 */
export class FrameBudget {
  readonly #burst: number
  readonly #aSecond: number
  readonly #now: () => number
  #left: number
  #atMs: number

  constructor(burst: number, aSecond: number, now: () => number = performance.now.bind(performance)) {
    this.#burst = burst
    this.#aSecond = aSecond
    this.#now = now
    this.#left = burst
    this.#atMs = now()
  }

  /** Allows so many more, up to what may come at once. */
  earn(times: number): void {
    this.#left = Math.min(this.#burst, this.#left + times)
  }

  /** False when there were too many. */
  spend(): boolean {
    const nowMs = this.#now()
    this.#left = Math.min(this.#burst, this.#left + ((nowMs - this.#atMs) * this.#aSecond) / 1000)
    this.#atMs = nowMs
    this.#left -= 1
    return this.#left >= 0
  }
}
