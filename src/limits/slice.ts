import type { Limit, LimitState } from './limits.ts'

/** What a look at a slice asks of the store. */
export interface SliceMove {
  readonly back: number
  readonly wanted: number
  /** Less than this is not worth a slice: calls go to the store one by one. */
  readonly least: number
}

/** Pause between two looks. */
export const lookEveryMs = 25
/** A slice is what the calls of so many looks take. */
const looksAhead = 8
const windowMs = lookEveryMs * looksAhead
/** Calls in that time that make a slice worth more than it costs. */
const busyCalls = 8
/** A slice that is not enough for so many is none. */
const leastCalls = 4
/** Looks without a call after which all of it goes back. */
const idleLooks = 4
/** How long no more is asked for where there was nothing to have; twice as long each time, up to the most. */
const deniedMs = 250
const deniedMostMs = 8_000

/** Whether a share of the whole limit would be worth a slice, for calls that take so much. */
export function isSliceable({ capacity }: Limit, amount: number, percent: number): boolean {
  return (capacity * percent) / 100 >= Math.max(1, amount) * leastCalls
}

/** Units of one limit that this process took in advance and spends without asking. Time in milliseconds that never go back. */
export class Slice {
  readonly limit: Limit
  /** As a plan has it, and the scripts. */
  readonly text: string
  #hand = 0
  #isAsked = false
  #deniedUntil = 0
  #deniedMs = deniedMs
  #window = 0
  #callsInWindow = 0
  #callsBefore = 0
  /** Since the last look. */
  #units = 0
  #calls = 0
  /** Units and calls a look, smoothed. */
  #pace = 0
  #callPace = 0
  #idle = 0
  #remaining = 0
  #resetAtMs = 0

  constructor(limit: Limit, text: string) {
    this.limit = limit
    this.text = text
  }

  /** Units that may be spent. */
  get units(): number {
    return this.#hand
  }

  /** Units are on their way. */
  get isAsked(): boolean {
    return this.#isAsked
  }

  /** Counts a call of the limit. True when so many come that a slice is worth it, and the store may have something to give. */
  isWorthIt(nowMs: number): boolean {
    const window = Math.floor(nowMs / windowMs)
    if (window !== this.#window) {
      this.#callsBefore = window === this.#window + 1 ? this.#callsInWindow : 0
      this.#callsInWindow = 0
      this.#window = window
    }
    this.#callsInWindow += 1
    const isBusy = this.#callsInWindow >= busyCalls || this.#callsBefore >= busyCalls
    return isBusy && nowMs >= this.#deniedUntil
  }

  /** A call takes so much of the limit that could have come from here. */
  note(amount: number): void {
    this.#units += amount
    this.#calls += 1
  }

  /** The caller has looked that there is enough. A negative amount was not spent after all. */
  spend(amount: number): void {
    this.#hand -= amount
  }

  /** What is left by what the store said last; what other processes took since is not known. */
  state(): LimitState {
    const resetAtMs = this.limit.kind === 'concurrency' ? Date.now() : this.#resetAtMs
    return { remaining: this.#remaining + this.#hand, resetAtMs }
  }

  /** True when nothing is held and nobody asks. */
  get isIdle(): boolean {
    return this.#hand === 0 && !this.#isAsked && this.#idle >= idleLooks
  }

  /** What to ask of the store now; what goes back is not spent from here on. */
  look(nowMs: number): SliceMove | undefined {
    const [units, calls] = [this.#units, this.#calls]
    this.#units = 0
    this.#calls = 0
    this.#pace += (units - this.#pace) / 4
    this.#callPace += (calls - this.#callPace) / 4
    this.#idle = calls === 0 ? this.#idle + 1 : 0
    const target = Math.ceil(this.#pace * looksAhead)
    const least = Math.ceil((this.#pace / Math.max(this.#callPace, 1e-9)) * leastCalls)
    let back = 0
    if (this.#idle >= idleLooks) back = this.#hand
    else if (this.#hand > 2 * target) back = this.#hand - target
    this.#hand -= back
    const mayAsk = !this.#isAsked && this.#idle === 0 && nowMs >= this.#deniedUntil
    const isWorthIt = this.#callPace * looksAhead >= leastCalls && this.#hand <= target / 2
    const wanted = mayAsk && isWorthIt ? target - this.#hand : 0
    if (wanted > 0) this.#isAsked = true
    return back > 0 || wanted > 0 ? { back, wanted, least: Math.min(wanted, Math.max(1, least)) } : undefined
  }

  /** All of it, which is not spent from here on; no more is asked for in the next moment. */
  giveBack(nowMs: number): number {
    const back = this.#hand
    this.#hand = 0
    this.#deniedUntil = Math.max(this.#deniedUntil, nowMs + deniedMs)
    return back
  }

  /** What the store gave of what was wanted; no state where it does not know the limit. */
  given(units: number, state: LimitState | undefined, nowMs: number): void {
    this.#isAsked = false
    this.#hand += units
    if (units === 0) {
      this.#deniedUntil = nowMs + this.#deniedMs
      this.#deniedMs = Math.min(2 * this.#deniedMs, deniedMostMs)
    } else {
      this.#deniedMs = deniedMs
    }
    if (state === undefined) return
    this.#remaining = state.remaining
    this.#resetAtMs = state.resetAtMs
  }
}
