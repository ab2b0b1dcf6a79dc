/**
 * One circuit breaker per endpoint, on opossum.
 *
 * - **closed**: calls pass; `failures` failing ones within `windowMs` open it.
 * - **open**: calls are refused with BREAKER_OPEN for `resetMs`.
 * - **half-open**: the next call is the one probe; a good answer closes the breaker, anything else opens it again.
 *
 * opossum decides by error rate; the promise here is a count, so the rate is set out of reach and the breaker is opened
 * on the count. A caller that gave up says nothing about the backend: it neither counts as a failure nor, as a probe,
 * closes the breaker.
 */
import { EventEmitter } from 'node:events'
import CircuitBreaker from 'opossum'
import { TollgateError } from '../errors.ts'

export type BreakerState = 'closed' | 'half_open' | 'open'

/** What an attempt's error says about the backend. */
export type Verdict = 'healthy' | 'failing' | 'unknown'

export interface BreakerOptions {
  /** Failures within the window that open the breaker. */
  readonly failures: number
  readonly windowMs: number
  /** How long an open breaker refuses before it lets a probe pass. */
  readonly resetMs: number
  readonly judge: (error: unknown) => Verdict
  readonly now: () => number
  /** Told of every change of state. */
  readonly onChange: (endpointId: string, state: BreakerState) => void
}

export interface Breakers {
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

type Action = () => Promise<unknown>
type Breaker = CircuitBreaker<[Action], unknown>

const buckets = 10

/** Endpoints that left the registry keep their breaker until this many are known. */
const maxBreakers = 10_000

export function createBreakers(options: BreakerOptions): Breakers {
  const breakers = new Map<string, Breaker>()
  const openedAtMs = new Map<string, number>()
  const rotation = new EventEmitter()
  rotation.setMaxListeners(0)
  const rotate = setInterval(() => rotation.emit('rotate'), options.windowMs / buckets)
  rotate.unref()

  function create(endpointId: string): Breaker {
    const breaker: Breaker = new CircuitBreaker<[Action], unknown>((action: Action) => action(), {
      name: endpointId,
      timeout: false,
      errorThresholdPercentage: 100,
      volumeThreshold: Number.MAX_SAFE_INTEGER,
      rollingCountTimeout: options.windowMs,
      rollingCountBuckets: buckets,
      rollingPercentilesEnabled: false,
      enableSnapshots: false,
      rotateBucketController: rotation,
      resetTimeout: options.resetMs,
      errorFilter: (error: unknown) => {
        const verdict = options.judge(error)
        return verdict === 'healthy' || (verdict === 'unknown' && !breaker.halfOpen)
      },
    })
    breaker.on('failure', () => {
      if (!breaker.opened && breaker.stats.failures >= options.failures) breaker.open()
    })
    breaker.on('open', () => {
      openedAtMs.set(endpointId, options.now())
      options.onChange(endpointId, 'open')
    })
    breaker.on('halfOpen', () => options.onChange(endpointId, 'half_open'))
    breaker.on('close', () => options.onChange(endpointId, 'closed'))
    return breaker
  }

  function breakerOf(endpointId: string): Breaker {
    const known = breakers.get(endpointId)
    if (known !== undefined) return known
    const [oldest] = breakers
    if (breakers.size >= maxBreakers && oldest !== undefined) {
      oldest[1].shutdown()
      breakers.delete(oldest[0])
      openedAtMs.delete(oldest[0])
    }
    const breaker = create(endpointId)
    breakers.set(endpointId, breaker)
    return breaker
  }

  function refusal(breaker: Breaker, endpointId: string): TollgateError {
    const opened = openedAtMs.get(endpointId) ?? options.now()
    const retryAfterMs = Math.max(1, opened + options.resetMs - options.now())
    return new TollgateError(
      'BREAKER_OPEN',
      `The service's backend failed ${options.failures} times within ${options.windowMs} ms; the breaker lets the next probe pass in ${retryAfterMs} ms.`,
      { retryAfterMs, metadata: { endpointId, breaker: stateOf(breaker), retryAfterMs: String(retryAfterMs) } },
    )
  }

  return {
    async run<T>(endpointId: string, attempt: () => Promise<T>): Promise<T> {
      const breaker = breakerOf(endpointId)
      try {
        // opossum's type erases the action's result; it resolves with exactly what the action resolved with.
        return (await breaker.fire(attempt)) as T
      } catch (error) {
        if (error instanceof Error && CircuitBreaker.isOurError(error)) throw refusal(breaker, endpointId)
        throw error
      }
    },
    mayPass(endpointId) {
      const breaker = breakers.get(endpointId)
      return breaker === undefined || breaker.closed || breaker.pendingClose
    },
    fail(endpointId, error) {
      const breaker = breakerOf(endpointId)
      // An open breaker knows already, and a half-open one asks its probe.
      if (breaker.closed) breaker.fire(() => Promise.reject(error)).catch(() => {})
    },
    stateOf(endpointId) {
      const breaker = breakers.get(endpointId)
      return breaker === undefined ? 'closed' : stateOf(breaker)
    },
    states: () => new Map([...breakers].map(([id, breaker]) => [id, stateOf(breaker)])),
    close() {
      clearInterval(rotate)
      for (const breaker of breakers.values()) breaker.shutdown()
    },
  }
}

function stateOf(breaker: Breaker): BreakerState {
  return breaker.opened ? 'open' : breaker.halfOpen ? 'half_open' : 'closed'
}
