import { context, propagation, SpanKind } from '@opentelemetry/api'
import type { Call } from '../call.ts'
import type { TollgateError } from '../errors.ts'
import type { BackendRequest } from '../providers/provider.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import { withSpan } from '../telemetry/tracing.ts'
import { BackendCall } from './backend-call.ts'
import { asTollgateError } from './backend-errors.ts'
import type { BackendPool } from './backend-pool.ts'
import type { Breakers, Verdict } from './breaker.ts'
import type { Credentials } from './credentials.ts'
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
export interface Receiver<T> {
  /** Longest answer; undefined for no limit. */
  readonly maxBytes: number | undefined
  onData(chunk: Buffer, post: BackendCall): void
  /** Resolves as soon as the attempt counts as good: what the caller gets. Rejects when it failed. */
  value(post: BackendCall): Promise<T>
  /** Of a value that goes on after that: resolves at its end, with what went wrong. Never rejects. */
  over?(value: T): Promise<TollgateError | undefined>
}

/** Told of what happens at backends; must not throw or wait. */
export interface AttemptObserver {
  /** An attempt is over. */
  attempted(service: ServiceRecord, attempt: Attempt): void
  /** The gate's own credential is missing or was refused: somebody must act. */
  credentialRefused(service: ServiceRecord, endpoint: EndpointRecord): void
}

/** What came of an attempt. Without one, the breaker refused; `over` is the attempt as it stands when all of it ended. */
export type Made<T> =
  | { readonly attempt: Attempt; readonly value: T; readonly over: Promise<Attempt> }
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
  /** What ends it; see `disconnect.ts`. */
  readonly signal: AbortSignal
}

/** A backend that is too busy and does not say for how long rests so long. */
const busyRestMs = 1_000

/** Makes one attempt, unless the endpoint's breaker refuses, and tells everyone who learns from it. Never rejects. */
export async function makeAttempt<T>(parts: AttemptParts, plan: AttemptPlan, receiver: Receiver<T>): Promise<Made<T>> {
  const { pool, breakers, loads, now } = parts
  const { service, endpoint, number, task } = plan
  const id = task.attemptId(number)
  const startMs = now()
  let post: BackendCall | undefined
  let valueAtMs: number | undefined

  function attemptNow(error: TollgateError | undefined): Attempt {
    return {
      id,
      number,
      endpointId: endpoint.id,
      startMs,
      durationMs: now() - startMs,
      headersMs: post?.headersAtMs === undefined ? undefined : post.headersAtMs - startMs,
      firstTokenMs: receiver.over === undefined || valueAtMs === undefined ? undefined : valueAtMs - startMs,
      status: post?.status ?? 0,
      receivedBytes: post?.receivedBytes ?? 0,
      error,
    }
  }

  let hasBegun = false
  const run = async (): Promise<T> => {
    hasBegun = true
    loads.begin(endpoint.id)
    post = await send(parts, plan, id, receiver)
    return receiver.value(post)
  }
  const attributes = pool.target(endpoint.url).attributes
  try {
    const value = await breakers.run(endpoint.id, () => withSpan('POST', run, { kind: SpanKind.CLIENT, attributes }))
    valueAtMs = now()
    const attempt = attemptNow(undefined)
    if (receiver.over === undefined) {
      learn(parts, service, endpoint, attempt)
      return { attempt, value, over: Promise.resolve(attempt) }
    }
    const over = receiver.over(value).then((error) => {
      if (error !== undefined && judge(error) === 'failing') breakers.fail(endpoint.id, error)
      const ended = attemptNow(error)
      learn(parts, service, endpoint, ended)
      return ended
    })
    return { attempt, value, over }
  } catch (cause) {
    const error = asTollgateError(cause)
    if (!hasBegun) return { attempt: undefined, error }
    const attempt = attemptNow(error)
    learn(parts, service, endpoint, attempt)
    return { attempt, error }
  }
}

/** Begins the request of an attempt. */
async function send<T>(
  { pool, credentials, now }: AttemptParts,
  { endpoint, task, call, signal }: AttemptPlan,
  attemptId: string,
  receiver: Receiver<T>,
): Promise<BackendCall> {
  const {
    url,
    headers,
    body,
    isGrpc = false,
  } = task.prepare(endpoint, await credentials.resolve(endpoint.credentialRef))
  const remainingMs = call.deadlineMs - now()
  const totalMs = endpoint.timeoutMs ?? remainingMs
  const timeoutMs = String(Math.max(1, Math.floor(Math.min(totalMs, remainingMs))))
  const all: Record<string, string> = {
    ...headers,
    'x-request-id': call.id,
    'x-tollgate-attempt-id': attemptId,
    ...(isGrpc ? { 'grpc-timeout': `${timeoutMs}m` } : { 'x-request-timeout-ms': timeoutMs }),
  }
  propagation.inject(context.active(), all)
  const { origin, path } = pool.target(url)
  return new BackendCall({
    transport: isGrpc ? pool.http2(origin, endpoint.connectTimeoutMs) : pool.agent(endpoint.connectTimeoutMs),
    origin,
    path,
    headers: all,
    body,
    isGrpc,
    isPoolFull: () => !isGrpc && pool.isFull(origin, endpoint.connectTimeoutMs),
    deadlines: {
      connect: endpoint.connectTimeoutMs ?? pool.connectTimeoutMs,
      headers: endpoint.headersTimeoutMs,
      firstToken: receiver.over === undefined ? undefined : endpoint.firstTokenTimeoutMs,
      idle: endpoint.idleTimeoutMs,
      // The call's own deadline ends it by its signal.
      total: totalMs < remainingMs ? totalMs : undefined,
    },
    maxBytes: receiver.maxBytes,
    signal,
    now,
    onData: receiver.onData,
  })
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
