/**
 * Sends a call to one of its service's endpoints, and to another one when that fails and may be tried again: pooled
 * keep-alive connections, a breaker for each endpoint, deadlines, and a verdict on every way in which a backend can fail.
 * Bodies pass as bytes. docs/routing.md says what is tried again, and when.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { PassingLine } from '../passing-line.ts'
import type { StreamReader } from '../providers/provider.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import {
  type Attempt,
  type AttemptObserver,
  judge,
  type Made,
  makeAttempt,
  type Receiver,
  type Task,
} from './attempts.ts'
import { createBackendPool } from './backend-pool.ts'
import { type BreakerState, createBreakers } from './breaker.ts'
import { chooseEndpoint, type EndpointView } from './choose-endpoint.ts'
import type { Credentials } from './credentials.ts'
import { Drain, type Ending } from './disconnect.ts'
import { createEndpointLoads } from './endpoint-loads.ts'
import { type BackendStream, StreamedAnswer, WholeAnswer } from './receivers.ts'
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
   * BACKEND_CREDENTIAL_REFUSED, BACKEND_ANSWER_TOO_LARGE, what `task.read` threw, or why the call was over early. Never
   * rejects.
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
  /** Service of each endpoint that has a breaker. */
  const services = new Map<string, string>()
  /** Calls that may go on without their callers. */
  const drains = new PassingLine<Drain>()
  /** Why no attempt begins any more. */
  let closed: TollgateError | undefined

  function viewOf(endpointId: string): EndpointView {
    return { ...loads.of(endpointId), isOpen: !breakers.mayPass(endpointId), isSick: isSick(endpointId) }
  }

  function endingOf(call: Call, { onDisconnect, drainLimitMs }: ServiceRecord): Ending {
    if (onDisconnect === 'cancel') return call
    const drain = new Drain(call, drainLimitMs, now)
    drain.place = drains.add(drain)
    return drain
  }

  function release(ending: Ending): void {
    if (!(ending instanceof Drain)) return
    ending.release()
    if (ending.place !== undefined) drains.leave(ending.place)
  }

  const whole = <T>(task: UnaryTask<T>): Receiver<T> => new WholeAnswer(options.maxResponseBytes, task)
  const streamed = (task: StreamTask): Receiver<BackendStream> => new StreamedAnswer(task.openReader())

  /** Attempt after attempt, until one is good or none may follow. */
  async function attemptAll<K extends Task, T>(
    service: ServiceRecord,
    task: K,
    call: Call,
    ending: Ending,
    mode: 'unary' | 'stream',
    receiverOf: (task: K) => Receiver<T>,
  ): Promise<{ attempts: Attempt[]; made: Made<T> }> {
    const attempts: Attempt[] = []
    let candidates = service.endpoints
    /** Until then no attempt begins: at the endpoint named, and anywhere else. */
    let readyAtMs: Map<string, number> | undefined
    let pauseUntilMs = 0
    let made: Made<T> | undefined
    budget.deposit(service.id)
    for (;;) {
      const endpoint = choose(service, candidates, attempts)
      if (endpoint === undefined) break
      if (pauseUntilMs > 0) await pause((readyAtMs?.get(endpoint.id) ?? pauseUntilMs) - now(), call)
      // The caller may have left during admission, or during the pause.
      const ended = call.ended ?? closed
      if (ended !== undefined) return { attempts, made: { attempt: undefined, error: ended } }
      services.set(endpoint.id, service.id)
      const number = attempts.length + 1
      const latest = await makeAttempt(parts, { service, endpoint, number, task, call, ending }, receiverOf(task))
      if (latest.attempt === undefined) {
        // Its breaker refused. That is the answer only when no backend gave one.
        if (attempts.length === 0) made = soonest(made, latest)
        candidates = candidates.filter((candidate) => candidate !== endpoint)
        continue
      }
      made = latest
      attempts.push(latest.attempt)
      if ('value' in latest) break
      const { error } = latest
      const { retryAfterMs } = error
      const remainingMs = call.deadlineMs - now()
      const retry = nextAttempt({ failure: failureOf(error), mode, number, retryAfterMs, remainingMs }, random)
      if (retry === undefined) break
      pauseUntilMs = now() + retry.delayMs
      if (retry.sameDelayMs === undefined) candidates = candidates.filter((candidate) => candidate !== endpoint)
      else readyAtMs = new Map(readyAtMs).set(endpoint.id, now() + retry.sameDelayMs)
      if (candidates.length === 0 || !budget.withdraw(service.id)) break
    }
    return { attempts, made: made ?? { attempt: undefined, error: noEndpoint(service) } }
  }

  /** Of the endpoints that may be asked, after the attempts so far. */
  function choose({ routing }: ServiceRecord, endpoints: readonly EndpointRecord[], attempts: readonly Attempt[]) {
    // By far the most services have one.
    if (endpoints.length <= 1) return endpoints[0]
    const tried = attempts.map(({ endpointId }) => endpointId)
    return chooseEndpoint({ routing, endpoints, view: viewOf, tried, random })
  }

  return {
    dispatch(service, task, call) {
      const ending = endingOf(call, service)
      return attemptAll(service, task, call, ending, 'unary', whole).then(({ attempts, made }) => {
        release(ending)
        return 'value' in made
          ? { attempts, value: made.value }
          : { attempts, error: toldAttempts(made.error, attempts) }
      })
    },

    async open(service, task, call) {
      const ending = endingOf(call, service)
      const { attempts, made } = await attemptAll(service, task, call, ending, 'stream', streamed)
      if ('value' in made) {
        const over = made.over ?? Promise.resolve(made.attempt)
        return { attempts, value: made.value, over: over.finally(() => release(ending)) }
      }
      release(ending)
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
      closed = new TollgateError('SHUTTING_DOWN', 'The gate is shutting down.')
      for (const drain of drains.values()) drain.end(closed)
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

async function pause(ms: number, { signal }: Call): Promise<void> {
  if (ms > 0) await delay(ms, undefined, { signal }).catch(() => {})
}

/** A failure that several attempts led to says how many. */
function toldAttempts(error: TollgateError, attempts: readonly Attempt[]): TollgateError {
  return attempts.length < 2 ? error : error.withMetadata({ attempts: String(attempts.length) })
}
