import { context, propagation } from '@opentelemetry/api'
import type { Call } from '../call.ts'
import type { TollgateError } from '../errors.ts'
import type { BackendRequest } from '../providers/provider.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import { withSpan } from '../telemetry/tracing.ts'
import { BackendCall, type BodySink } from './backend-call.ts'
import { asTollgateError } from './backend-errors.ts'
import type { BackendPool } from './backend-pool.ts'
import type { Breakers, Verdict } from './breaker.ts'
import type { Credentials } from './credentials.ts'
import type { Ending } from './disconnect.ts'
import type { EndpointLoads } from './endpoint-loads.ts'
import { type Failure, failureOf } from './retry-table.ts'

/** What is asked of whichever endpoint gets the call. */
export interface Task {
  /** Id of attempt `number`, from 1; the backend gets it as x-tollgate-attempt-id. */
  attemptId(number: number): string
  /** The POST for an endpoint. */
  prepare(endpoint: EndpointRecord, credential: string | undefined): BackendRequest
}

/** One try of a call at one endpoint. */
export interface Attempt {
  readonly id: string
  /** From 1. */
  readonly number: number
  readonly endpointId: string
  /** Unix milliseconds. */
  readonly startMs: number
  readonly durationMs: number
  /** Milliseconds from the start to the headers of an answer; undefined when none came. */
  readonly headersMs: number | undefined
  /** Milliseconds from the start to the first output of a stream. */
  readonly firstTokenMs: number | undefined
  /** HTTP status; 0 when none came. */
  readonly status: number
  /** Bytes of the answer's body. */
  readonly receivedBytes: number
  /** Undefined when it succeeded. */
  readonly error: TollgateError | undefined
}

/** Takes an answer in. Made anew for each attempt. */
export interface Receiver<T> extends BodySink {
  /** Resolves as soon as the attempt counts as good: what the caller gets. Rejects when it failed. */
  value(post: BackendCall): Promise<T>
  /** Of a value that goes on after that: resolves at its end, with what went wrong. Never rejects. */
  over?(): Promise<TollgateError | undefined>
}

/** Told of what happens at backends; must not throw or wait. */
export interface AttemptObserver {
  /** An attempt is over. */
  attempted(service: ServiceRecord, attempt: Attempt): void
  /** The gate's own credential is missing or was refused: somebody must act. */
  credentialRefused(service: ServiceRecord, endpoint: EndpointRecord): void
}

/**
 * What came of an attempt. Without one, the breaker refused. Of a value that goes on, `over` is the attempt as it stands when
 * all of it ended; of others it is undefined.
 */
export type Made<T> =
  | { readonly attempt: Attempt; readonly value: T; readonly over: Promise<Attempt> | undefined }
  | { readonly attempt: Attempt | undefined; readonly error: TollgateError }

export interface AttemptParts {
  readonly pool: BackendPool
  readonly breakers: Breakers
  readonly loads: EndpointLoads
  readonly credentials: Credentials
  readonly observer: AttemptObserver
  /** Unix milliseconds. */
  readonly now: () => number
}

/** All that an attempt is about. */
export interface AttemptPlan {
  readonly service: ServiceRecord
  readonly endpoint: EndpointRecord
  /** From 1. */
  readonly number: number
  readonly task: Task
  readonly call: Call
  /** What ends it. */
  readonly ending: Ending
}

/** A backend that is too busy and does not say for how long rests so long. */
const busyRestMs = 1_000

/** Makes one attempt, unless the endpoint's breaker refuses, and tells everyone who learns from it. Never rejects. */
export async function makeAttempt<T>(parts: AttemptParts, plan: AttemptPlan, receiver: Receiver<T>): Promise<Made<T>> {
  const { pool, breakers, loads } = parts
  const { service, endpoint } = plan
  const breaker = breakers.of(endpoint.id)
  const pass = breaker.enter()
  if (pass === undefined) return { attempt: undefined, error: breaker.refusal() }
  loads.begin(endpoint.id)
  const running = new RunningAttempt(parts, plan, receiver)
  let value: T
  try {
    value = await withSpan('POST', () => running.value(), pool.target(endpoint.url).span)
  } catch (cause) {
    const error = asTollgateError(cause)
    breaker.leave(pass, judge(error))
    const attempt = running.standing(error)
    learn(parts, service, endpoint, attempt)
    return { attempt, error }
  }
  breaker.leave(pass, 'healthy')
  const attempt = running.standing(undefined)
  if (receiver.over === undefined) {
    learn(parts, service, endpoint, attempt)
    return { attempt, value, over: undefined }
  }
  const over = receiver.over().then((error) => {
    if (error !== undefined) breaker.leave('call', judge(error))
    const ended = running.standing(error)
    learn(parts, service, endpoint, ended)
    return ended
  })
  return { attempt, value, over }
}

/** An attempt that its breaker let in. */
class RunningAttempt<T> {
  readonly #parts: AttemptParts
  readonly #plan: AttemptPlan
  readonly #receiver: Receiver<T>
  readonly #id: string
  readonly #startMs: number
  #post: BackendCall | undefined
  #firstTokenMs: number | undefined

  constructor(parts: AttemptParts, plan: AttemptPlan, receiver: Receiver<T>) {
    this.#parts = parts
    this.#plan = plan
    this.#receiver = receiver
    this.#id = plan.task.attemptId(plan.number)
    this.#startMs = parts.now()
  }

  /** Sends the request; resolves as its receiver's value does. Throws or rejects when there is no credential. */
  value(): Promise<T> {
    const credential = this.#parts.credentials.resolve(this.#plan.endpoint.credentialRef)
    // A promise is made and awaited only where a file has to be read.
    return typeof credential === 'object' ? credential.then((read) => this.#send(read)) : this.#send(credential)
  }

  /** The attempt as it stands now. */
  standing(error: TollgateError | undefined): Attempt {
    const post = this.#post
    const durationMs = this.#parts.now() - this.#startMs
    if (error === undefined && this.#receiver.over !== undefined) this.#firstTokenMs ??= durationMs
    return {
      id: this.#id,
      number: this.#plan.number,
      endpointId: this.#plan.endpoint.id,
      startMs: this.#startMs,
      durationMs,
      headersMs: post?.headersAtMs === undefined ? undefined : post.headersAtMs - this.#startMs,
      firstTokenMs: this.#firstTokenMs,
      status: post?.status ?? 0,
      receivedBytes: post?.receivedBytes ?? 0,
      error,
    }
  }

  #send(credential: string | undefined): Promise<T> {
    const { pool, now } = this.#parts
    const { endpoint, task, call, ending } = this.#plan
    const { url, headers, body, isGrpc = false } = task.prepare(endpoint, credential)
    const remainingMs = call.deadlineMs - now()
    const totalMs = endpoint.timeoutMs ?? remainingMs
    const timeoutMs = String(Math.max(1, Math.floor(Math.min(totalMs, remainingMs))))
    const all: Record<string, string> = { ...headers, 'x-request-id': call.id, 'x-tollgate-attempt-id': this.#id }
    if (isGrpc) all['grpc-timeout'] = `${timeoutMs}m`
    else all['x-request-timeout-ms'] = timeoutMs
    propagation.inject(context.active(), all)
    const { origin, path } = pool.target(url)
    this.#post = new BackendCall({
      transport: pool.transport(isGrpc ? 'http2' : 'http1', origin, endpoint.connectTimeoutMs),
      request: { path, method: 'POST', headers: all, body },
      isGrpc,
      deadlines: {
        connect: endpoint.connectTimeoutMs ?? pool.connectTimeoutMs,
        headers: endpoint.headersTimeoutMs,
        firstToken: this.#receiver.over === undefined ? undefined : endpoint.firstTokenTimeoutMs,
        idle: endpoint.idleTimeoutMs,
        // The call's own deadline ends it.
        total: totalMs < remainingMs ? totalMs : undefined,
      },
      ending,
      now,
      sink: this.#receiver,
    })
    return this.#receiver.value(this.#post)
  }
}

/** What an attempt says about its endpoint, for the calls after it. */
function learn(parts: AttemptParts, service: ServiceRecord, endpoint: EndpointRecord, attempt: Attempt): void {
  const { loads, credentials, observer } = parts
  const { error, headersMs, firstTokenMs, durationMs } = attempt
  const begunMs = firstTokenMs ?? headersMs
  const isAnswer = error === undefined || judge(error) === 'healthy' || firstTokenMs !== undefined
  loads.end(endpoint.id, isAnswer && begunMs !== undefined ? { ms: begunMs, isAnswer } : { ms: durationMs, isAnswer })
  const failure = error === undefined ? undefined : failureOf(error)
  if (failure === 'busy') loads.rest(endpoint.id, error?.retryAfterMs ?? busyRestMs)
  if (failure === 'unavailable') loads.rest(endpoint.id, error?.retryAfterMs ?? 0)
  if (failure === 'credential_refused' || failure === 'credential_missing') {
    credentials.refused(endpoint.credentialRef)
    observer.credentialRefused(service, endpoint)
  }
  observer.attempted(service, attempt)
}

/** What each failure says about a backend: one that answers, if only with a refusal, is healthy. */
const verdicts: Readonly<Partial<Record<Failure, Verdict>>> = {
  busy: 'healthy',
  rejected: 'healthy',
  answer_too_large: 'healthy',
  no_free_connection: 'unknown',
  call_ended: 'unknown',
  internal: 'unknown',
}

/** What an attempt's error says about the backend, for its breaker. */
export function judge(error: unknown): Verdict {
  return verdicts[failureOf(error)] ?? 'failing'
}
