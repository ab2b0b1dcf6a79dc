/**
 * The deadlines of one attempt, on one timer. It is set for the nearest of them, and moved only when one comes that is
 * nearer: a deadline that is put off, as that for silence is with every chunk, or given up, costs no more than a number.
 * When the timer comes too early for that reason, it is set again. Never early, and as late as Node's timers are.
 *
 * - **phase**: for what the attempt waits for now; it is begun anew with each phase.
 * - **first_token**, **total**: for the first output, and for everything.
 *
 * Time that does not count, because the gate makes the backend wait, is a pause: the deadlines stand still.
 */
export class DeadlineTimer {
  readonly #onPassed: (deadline: Deadline, ms: number) => void
  /** How long each was to be. */
  readonly #ms: Record<Deadline, number> = { phase: 0, first_token: 0, total: 0 }
  /** By `performance.now`: no clock that is set moves them. */
  readonly #dueAtMs: Record<Deadline, number> = { phase: never, first_token: never, total: never }
  #timer: NodeJS.Timeout | undefined
  #timerAtMs = never
  #pausedAtMs: number | undefined

  /** @param onPassed told of a deadline that passed, and how long it was. */
  constructor(onPassed: (deadline: Deadline, ms: number) => void) {
    this.#onPassed = onPassed
  }

  /** Begins a deadline, or begins it anew. */
  start(deadline: Deadline, ms: number): void {
    this.#ms[deadline] = ms
    this.#dueAtMs[deadline] = performance.now() + ms
    this.#wake()
  }

  /** Gives a deadline up. */
  stop(deadline: Deadline): void {
    this.#dueAtMs[deadline] = never
  }

  pause(): void {
    this.#pausedAtMs ??= performance.now()
    this.#clear()
  }

  resume(): void {
    if (this.#pausedAtMs === undefined) return
    const pausedMs = performance.now() - this.#pausedAtMs
    this.#pausedAtMs = undefined
    for (const deadline of deadlines) this.#dueAtMs[deadline] += pausedMs
    this.#wake()
  }

  /** Gives all of them up, and leaves no timer behind. */
  end(): void {
    for (const deadline of deadlines) this.#dueAtMs[deadline] = never
    this.#clear()
  }

  #clear(): void {
    clearTimeout(this.#timer)
    this.#timerAtMs = never
  }

  #wake(): void {
    const { phase, first_token, total } = this.#dueAtMs
    const nextAtMs = Math.min(phase, first_token, total)
    if (nextAtMs >= this.#timerAtMs || this.#pausedAtMs !== undefined) return
    clearTimeout(this.#timer)
    this.#timerAtMs = nextAtMs
    this.#timer = setTimeout(this.#onTime, Math.min(longestTimerMs, Math.ceil(nextAtMs - performance.now())))
  }

  readonly #onTime = (): void => {
    this.#timerAtMs = never
    const nowMs = performance.now()
    for (const deadline of deadlines) {
      if (this.#dueAtMs[deadline] > nowMs) continue
      this.stop(deadline)
      this.#onPassed(deadline, this.#ms[deadline])
    }
    this.#wake()
  }
}

export type Deadline = 'phase' | 'first_token' | 'total'

const deadlines: readonly Deadline[] = ['phase', 'first_token', 'total']
const never = Number.POSITIVE_INFINITY

/** Node takes a longer one for 1 ms. */
const longestTimerMs = 2 ** 31 - 1
