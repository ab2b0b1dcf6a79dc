/**
 * One circuit breaker per endpoint.
 *
 * - **closed**: calls pass; `failures` failing ones within `windowMs` open it.
 * - **open**: calls are refused with BREAKER_OPEN for `resetMs`.
 * - **half-open**: the next call is the one probe; a good answer closes the breaker, anything else opens it again.
 *
 * A caller that gave up says nothing about the backend: it neither counts as a failure nor, as a probe, closes the breaker.
 * Nor does the end of a call say anything that was let in before the breaker opened: a half-open breaker asks its probe.
 *
 * It stands on the way of every call, and a call that passes costs two comparisons. opossum stood here before: it took a
 * quarter of all that the gate does between a call and its connection, in promises, events and closures.
 */
import { TollgateError } from '../errors.ts'

export type BreakerState = 'closed' | 'half_open' | 'open'

/** What an attempt's error says about the backend. */
export type Verdict = 'healthy' | 'failing' | 'unknown'

/** How a breaker let an attempt in: as one of many, or as its probe. */
export type Pass = 'call' | 'probe'

export interface BreakerOptions {
  /** Failures within the window that open the breaker. */
  readonly failures: number
  readonly windowMs: number
  /** How long an open breaker refuses before it lets a probe pass. */
  readonly resetMs: number
  readonly judge: (error: unknown) => Verdict
  readonly now: () => number
  /** Told of every change of state; must not throw. */
  readonly onChange: (endpointId: string, state: BreakerState) => void
}

export interface Breakers {
  /** The breaker of an endpoint, made at its first use. */
  of(endpointId: string): Breaker
  /** Runs `attempt` unless the endpoint's breaker refuses. Throws BREAKER_OPEN, or the attempt's own error. */
  run<T>(endpointId: string, attempt: () => Promise<T>): Promise<T>
  /** Whether `run` would let an attempt pass now: closed, or half-open and the probe has not begun. */
  mayPass(endpointId: string): boolean
  /** Counts a failure that came after its attempt had counted as good: a stream that broke. */
  fail(endpointId: string, error: unknown): void
  /** An endpoint that was never called is closed. */
  stateOf(endpointId: string): BreakerState
  /** Every endpoint that was called at least once. */
  states(): ReadonlyMap<string, BreakerState>
  close(): void
}

/** Endpoints that left the registry keep their breaker until this many are known. */
const maxBreakers = 10_000

export function createBreakers(options: BreakerOptions): Breakers {
  const breakers = new Map<string, Breaker>()

  function breakerOf(endpointId: string): Breaker {
    const known = breakers.get(endpointId)
    if (known !== undefined) return known
    const [oldest] = breakers
    if (breakers.size >= maxBreakers && oldest !== undefined) {
      oldest[1].close()
      breakers.delete(oldest[0])
    }
    const breaker = new Breaker(endpointId, options)
    breakers.set(endpointId, breaker)
    return breaker
  }

  return {
    of: breakerOf,
    async run<T>(endpointId: string, attempt: () => Promise<T>): Promise<T> {
      const breaker = breakerOf(endpointId)
      const pass = breaker.enter()
      if (pass === undefined) throw breaker.refusal()
      try {
        const value = await attempt()
        breaker.leave(pass, 'healthy')
        return value
      } catch (error) {
        breaker.leave(pass, options.judge(error))
        throw error
      }
    },
    mayPass: (endpointId) => breakers.get(endpointId)?.mayPass ?? true,
    fail: (endpointId, error) => breakerOf(endpointId).leave('call', options.judge(error)),
    stateOf: (endpointId) => breakers.get(endpointId)?.state ?? 'closed',
    states: () => new Map([...breakers].map(([id, { state }]) => [id, state])),
    close() {
      for (const breaker of breakers.values()) breaker.close()
    },
  }
}

export class Breaker {
  readonly #endpointId: string
  readonly #options: BreakerOptions
  #state: BreakerState = 'closed'
  #probeIsOut = false
  /** Of the last failures within the window, the oldest first; as many as open the breaker, at most. */
  #failedAtMs: number[] = []
  #openedAtMs = 0
  #reset: NodeJS.Timeout | undefined

  constructor(endpointId: string, options: BreakerOptions) {
    this.#endpointId = endpointId
    this.#options = options
  }

  get state(): BreakerState {
    return this.#state
  }

  get mayPass(): boolean {
    return this.#state === 'closed' || (this.#state === 'half_open' && !this.#probeIsOut)
  }

  /** Lets an attempt in, to be matched by one {@link leave}; undefined when it must not be made. */
  enter(): Pass | undefined {
    if (this.#state === 'closed') return 'call'
    if (!this.mayPass) return undefined
    this.#probeIsOut = true
    return 'probe'
  }

  /** Tells how an attempt went. */
  leave(pass: Pass, verdict: Verdict): void {
    if (pass === 'probe') {
      this.#probeIsOut = false
      if (verdict === 'healthy') this.#become('closed')
      else this.#open()
    } else if (verdict === 'failing' && this.#state === 'closed') this.#fail()
  }

  /** BREAKER_OPEN, for an attempt that was not let in. */
  refusal(): TollgateError {
    const { failures, windowMs, resetMs, now } = this.#options
    const retryAfterMs = Math.max(1, this.#openedAtMs + resetMs - now())
    return new TollgateError(
      'BREAKER_OPEN',
      `The service's backend failed ${failures} times within ${windowMs} ms; the breaker lets the next probe pass in ${retryAfterMs} ms.`,
      {
        retryAfterMs,
        metadata: { endpointId: this.#endpointId, breaker: this.#state, retryAfterMs: String(retryAfterMs) },
      },
    )
  }

  /** Leaves no timer behind; an open breaker stays open. */
  close(): void {
    clearTimeout(this.#reset)
  }

  #fail(): void {
    const { failures, windowMs, now } = this.#options
    const nowMs = now()
    // A clock that was set back makes failures of the future, which say nothing.
    const recent = this.#failedAtMs.filter((atMs) => atMs <= nowMs && nowMs - atMs < windowMs)
    recent.push(nowMs)
    // What opened it still counts when it is closed again: another one within the window opens it at once.
    this.#failedAtMs = recent.slice(-failures)
    if (recent.length >= failures) this.#open()
  }

  #open(): void {
    this.#openedAtMs = this.#options.now()
    clearTimeout(this.#reset)
    this.#reset = setTimeout(() => this.#become('half_open'), this.#options.resetMs)
    this.#reset.unref()
    this.#become('open')
  }

  #become(state: BreakerState): void {
    this.#state = state
    this.#options.onChange(this.#endpointId, state)
  }
}
