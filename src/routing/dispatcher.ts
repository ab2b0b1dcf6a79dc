/**
 * Sends a call to one of its service's endpoints, and to another one when that fails and may be tried again: pooled
 * keep-alive connections, a breaker for each endpoint, deadlines, and a verdict on every way in which a backend can fail.
 * Bodies pass as bytes. docs/routing.md says what is tried again, and when.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { StreamReader } from '../providers/provider.ts'
import type { ServiceRecord } from '../registry/records.ts'
import {
  type Attempt,
  type AttemptObserver,
  judge,
  type Made,
  makeAttempt,
  type Receiver,
  type Task,
} from './attempts.ts'
import { callEnded } from './backend-errors.ts'
import { createBackendPool } from './backend-pool.ts'
import { type BreakerState, createBreakers } from './breaker.ts'
import { chooseEndpoint, type EndpointView } from './choose-endpoint.ts'
import type { Credentials } from './credentials.ts'
import { backendSignal } from './disconnect.ts'
import { createEndpointLoads } from './endpoint-loads.ts'
import { type BackendStream, streamedAnswer, wholeAnswer } from './receivers.ts'
import { createRetryBudget } from './retry-budget.ts'
import { nextAttempt } from './retry-policy.ts'
import { failureOf } from './retry-table.ts'

export type { Attempt, BackendStream, Task }

export interface DispatcherOptions {
  /** Sockets per backend host; further calls wait for one. */
  readonly connectionsPerHost: number
  /** For endpoints without a connect deadline of their own. */
  readonly connectTimeoutMs: number
  /** Longest whole answer that is accepted. */
  readonly maxResponseBytes: number
  readonly breaker: { readonly failures: number; readonly windowMs: number; readonly resetMs: number }
  readonly credentials: Credentials
  /** Unix milliseconds. */
  readonly now: () => number
  /** Evenly from 0 (inclusive) to 1. Default Math.random. */
  readonly random?: () => number
  /** Whether an endpoint's health checks found it sick. Default: none is checked. */
  readonly isSick?: (endpointId: string) => boolean
  readonly observer: DispatchObserver
}

export interface DispatchObserver extends AttemptObserver {
  breakerChanged(endpointId: string, state: BreakerState): void
}

export interface Dispatcher {
  /**
   * Posts a call and returns what `task.read` makes of the whole answer of a status 2xx, or the error of the last attempt:
   * BREAKER_OPEN when no endpoint could be asked, BACKEND_UNREACHABLE, BACKEND_TIMEOUT, BACKEND_FAILED, BACKEND_REJECTED,
   * BACKEND_CREDENTIAL_REFUSED, BACKEND_ANSWER_TOO_LARGE, what `task.read` threw, or the reason that the call's signal was
   * aborted with. Never rejects.
   */
  dispatch<T>(service: ServiceRecord, task: UnaryTask<T>, call: Call): Promise<Dispatched<T>>
  /**
   * Posts a call for a stream and resolves at its first output; until then it is as free to go to another endpoint as a
   * whole answer. Afterwards the stream's own end says how it went. Never rejects.
   */
  open(service: ServiceRecord, task: StreamTask, call: Call): Promise<Opened>
  /** What is known of one endpoint. */
  standing(endpointId: string): Standing
  /** Breaker of every endpoint that was called since the start. */
  breakers(): BreakerSample[]
  /** Ends calls that go on without their callers, and waits for the others. */
  close(): Promise<void>
}

export interface UnaryTask<T> extends Task {
  /** Reads an answer; one that it refuses counts against the backend. */
  read(answer: Uint8Array): T
}

export interface StreamTask extends Task {
  /** A reader for one attempt. */
  openReader(): StreamReader
}

/** How a call went: its attempts in order, none when no backend was asked, and how the last one ended. */
export type Dispatched<T> =
  | { readonly attempts: readonly Attempt[]; readonly value: T }
  | { readonly attempts: readonly Attempt[]; readonly error: TollgateError }

/** The last of `attempts` is the one that streams, as it stood at the first output; `over` resolves with it as it ended. */
export type Opened =
  | { readonly attempts: readonly Attempt[]; readonly value: BackendStream; readonly over: Promise<Attempt> }
  | { readonly attempts: readonly Attempt[]; readonly error: TollgateError }

export interface Standing extends Pick<EndpointView, 'latencyMs' | 'inFlight' | 'isResting'> {
  readonly breaker: BreakerState
}

export interface BreakerSample {
  readonly serviceId: string
  readonly endpointId: string
  readonly state: BreakerState
}

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { credentials, now, random = Math.random, observer, isSick = () => false } = options
  const pool = createBackendPool(options)
  const breakers = createBreakers({ ...options.breaker, judge, now, onChange: observer.breakerChanged })
  const loads = createEndpointLoads(now)
  const budget = createRetryBudget(now)
  const parts = { pool, breakers, loads, credentials, observer, now }
  const closing = new AbortController()
  /** Service of each endpoint that has a breaker. */
  const services = new Map<string, string>()

  function viewOf(endpointId: string): EndpointView {
    return { ...loads.of(endpointId), isOpen: !breakers.mayPass(endpointId), isSick: isSick(endpointId) }
  }

  /** Attempt after attempt, until one is good or none may follow. */
  async function attemptAll<T>(
    service: ServiceRecord,
    task: Task,
    call: Call,
    signal: AbortSignal,
    mode: 'unary' | 'stream',
    receiver: () => Receiver<T>,
  ): Promise<{ attempts: Attempt[]; made: Made<T> }> {
    const attempts: Attempt[] = []
    const tried: string[] = []
    let candidates = service.endpoints
    /** Until then no attempt begins: at the endpoint named, and anywhere else. */
    const readyAtMs = new Map<string, number>()
    let pauseUntilMs = 0
    let made: Made<T> | undefined
    budget.deposit(service.id)
    for (;;) {
      const { routing } = service
      const endpoint = chooseEndpoint({ routing, endpoints: candidates, view: viewOf, tried, random })
      if (endpoint === undefined) break
      await pause((readyAtMs.get(endpoint.id) ?? pauseUntilMs) - now(), call.signal)
      // The caller may have left during admission, or during the pause.
      if (call.signal.aborted) return { attempts, made: { attempt: undefined, error: callEnded(call.signal) } }
      services.set(endpoint.id, service.id)
      const number = attempts.length + 1
      const latest = await makeAttempt(parts, { service, endpoint, number, task, call, signal }, receiver())
      if (latest.attempt === undefined) {
        // Its breaker refused. That is the answer only when no backend gave one.
        if (attempts.length === 0) made = soonest(made, latest)
        candidates = candidates.filter((candidate) => candidate !== endpoint)
        continue
      }
      made = latest
      attempts.push(latest.attempt)
      if ('value' in latest) break
      tried.push(endpoint.id)
      const { error } = latest
      const { retryAfterMs } = error
      const remainingMs = call.deadlineMs - now()
      const retry = nextAttempt({ failure: failureOf(error), mode, number, retryAfterMs, remainingMs }, random)
      if (retry === undefined) break
      pauseUntilMs = now() + retry.delayMs
      if (retry.sameDelayMs === undefined) candidates = candidates.filter((candidate) => candidate !== endpoint)
      else readyAtMs.set(endpoint.id, now() + retry.sameDelayMs)
      if (candidates.length === 0 || !budget.withdraw(service.id)) break
    }
    return { attempts, made: made ?? { attempt: undefined, error: noEndpoint(service) } }
  }

  return {
    async dispatch(service, task, call) {
      const { signal, release } = backendSignal(call, service, closing.signal, now)
      const whole = () => wholeAnswer(options.maxResponseBytes, task.read)
      const { attempts, made } = await attemptAll(service, task, call, signal, 'unary', whole)
      release()
      return 'value' in made ? { attempts, value: made.value } : { attempts, error: toldAttempts(made.error, attempts) }
    },

    async open(service, task, call) {
      const { signal, release } = backendSignal(call, service, closing.signal, now)
      const streamed = () => streamedAnswer(task.openReader())
      const { attempts, made } = await attemptAll(service, task, call, signal, 'stream', streamed)
      if ('value' in made) return { attempts, value: made.value, over: made.over.finally(release) }
      release()
      return { attempts, error: toldAttempts(made.error, attempts) }
    },

    standing: (endpointId) => ({ ...loads.of(endpointId), breaker: breakers.stateOf(endpointId) }),

    breakers: () =>
      [...breakers.states()].map(([endpointId, state]) => ({
        serviceId: services.get(endpointId) ?? '',
        endpointId,
        state,
      })),

    async close() {
      closing.abort(new TollgateError('SHUTTING_DOWN', 'The gate is shutting down.'))
      breakers.close()
      await pool.close()
    },
  }
}

function noEndpoint({ id, name }: ServiceRecord): TollgateError {
  return new TollgateError('SERVICE_INACTIVE', `Service ${name} has no endpoint.`, { metadata: { serviceId: id } })
}

/** Of breakers that refuse, the one that lets a call pass first. */
function soonest<T>(one: Made<T> | undefined, other: Made<T>): Made<T> {
  const isBreaker = one !== undefined && 'error' in one && one.error.reason === 'BREAKER_OPEN'
  return isBreaker && waitOf(one) <= waitOf(other) ? one : other
}

function waitOf<T>(made: Made<T>): number {
  return 'error' in made ? (made.error.retryAfterMs ?? 0) : 0
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0) await delay(ms, undefined, { signal }).catch(() => {})
}

/** A failure that several attempts led to says how many. */
function toldAttempts(error: TollgateError, attempts: readonly Attempt[]): TollgateError {
  return attempts.length < 2 ? error : error.withMetadata({ attempts: String(attempts.length) })
}
