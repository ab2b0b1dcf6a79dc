/**
 * The gate: the straight path of a call.
 *
 * resolve → policy → plan → admit → dispatch → price → settle and record → answer
 *
 * From admission on, every way out goes through settlement: an admitted call leaves exactly one usage record with what it
 * used, and the caller hears of its end only after that record is durable. If this process dies in between, the
 * reservation's lease runs out and the record says "abandoned". Attempts before the last one leave records that count
 * nothing.
 */
import type { Logger } from 'pino'
import type { Call } from '../call.ts'
import type { TollgateError } from '../errors.ts'
import type { Limits, Settled } from '../limits/limits.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { PolicyEngine } from '../policy/policy-engine.ts'
import type { PolicyTold } from '../policy/told.ts'
import type { Charge } from '../pricing/price.ts'
import { type Framing, splitEvents } from '../providers/event-stream.ts'
import type { Dialect, RequestKind, StreamPiece } from '../providers/provider.ts'
import type { Skimmed } from '../providers/skim.ts'
import type { ServiceRecord, Tier } from '../registry/records.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import type { BackendStream, Dispatcher, Opened } from '../routing/dispatcher.ts'
import { BackendTask } from './backend-task.ts'
import { chooseVersion } from './choose-version.ts'
import { createEntrance, type Entered } from './entrance.ts'
import { type Leg, withFallbacks } from './fallback.ts'
import { type Flow, GateStream } from './gate-stream.ts'
import { answerMaxBytes } from './idempotency.ts'
import { KeptStream } from './kept-stream.ts'
import type { OpenCalls } from './open-calls.ts'
import { answered, failed, fromCache, streamed } from './outcome.ts'
import { createRecorder } from './recorder.ts'
import type { CachedAnswer, ResponseCache } from './response-cache.ts'

export interface GateOptions {
  readonly snapshots: Pick<SnapshotSource, 'current'>
  /** Undefined allows every call (ENABLE_POLICY_VALIDATION). */
  readonly policy: PolicyEngine | undefined
  readonly limits: Limits
  readonly cache: ResponseCache
  readonly dispatcher: Pick<Dispatcher, 'dispatch' | 'open'>
  /** Ends running calls with their key, for services that want it. */
  readonly openCalls: Pick<OpenCalls, 'follow'>
  /** False takes nothing from any limit; calls are metered all the same (ENABLE_RATE_LIMITING). */
  readonly rateLimiting: boolean
  readonly observer: GateObserver
  readonly log: Logger
  /** Unix milliseconds. */
  readonly now: () => number
  /** UUIDv7. */
  readonly newId: () => string
  /** Evenly from 0 (inclusive) to 1; chooses among the versions of a traffic split. Default Math.random. */
  readonly random?: () => number
}

/** Told of every call's end; must not throw or wait. */
export interface GateObserver {
  /** Refused before any backend was called; nothing was taken or recorded. */
  refused(refusal: GateRefusal): void
  /** Ended with a durable record. */
  recorded(event: UsageEvent, tier: Tier): void
  /** A period's settled use passed 80 or 100 percent. */
  thresholdPassed(event: UsageEvent, crossing: Settled['crossed'][number]): void
  /** The response cache was looked at, for a service that has one. */
  cacheAsked(serviceId: string, isHit: boolean): void
  /** The policy engine answered. */
  policyDecided(told: PolicyTold): void
}

/** A call that was refused, and whose it was. */
export interface GateRefusal {
  readonly requestId: string
  readonly organizationId: string
  readonly consumerId: string
  /** Empty for a caller without a key. */
  readonly keyId: string
  readonly serviceId: string
  readonly tier: Tier
  readonly error: TollgateError
}

export interface GateRequest {
  /** Id of the consumer that pays. */
  readonly consumerId: string
  /** Id or name. */
  readonly serviceId: string
  readonly payload: Uint8Array
  /** The payload as JSON, from a wire that had to read it anyway. */
  readonly parsed?: Skimmed
  readonly metadata: Readonly<Record<string, string>>
  /** Empty for none. */
  readonly idempotencyKey: string
  readonly dialect: Dialect
  /** What the caller's path says that it asks for; without it the body decides. */
  readonly kind?: RequestKind
  /** Set by the gate: the name that the caller used, when a traffic split chose the version of it. */
  readonly splitName?: string
}

/** What is known of a call that succeeded. */
export interface Served {
  readonly event: UsageEvent
  readonly charge: Charge
  readonly serviceVersion: string
  /** Why the backend stopped, in the OpenAI API's words where it has one; empty when the answer does not say. */
  readonly finishReason: string
  /** True when an earlier call with the same idempotency key was answered so; `event` is that call's. */
  readonly isReplayed: boolean
}

export interface GateAnswer extends Served {
  /** In the caller's dialect: the backend's body, untouched, where that is its own. */
  readonly body: Uint8Array
}

/** Of a stream: a start, then pieces, then its end. A stream that breaks off throws instead of its end. */
export type GateStreamItem = GateStreamStart | GateStreamPieces | GateStreamEnd

/** The first output is there. */
export interface GateStreamStart {
  readonly kind: 'start'
  /** Of the record: that of an earlier call when that call's answer is replayed. */
  readonly requestId: string
  /** Of the pieces. */
  readonly framing: Framing
}

export interface GateStreamPieces {
  readonly kind: 'pieces'
  /** Whole events with their framing, in the caller's dialect. */
  readonly pieces: readonly Uint8Array[]
}

/** The record is durable. */
export interface GateStreamEnd extends Served {
  readonly kind: 'end'
  /** The last events, which make the answer a success in the caller's eyes; none where there are no more. */
  readonly tail: readonly Uint8Array[]
}

export interface Gate {
  /**
   * Throws the refusals of each step (CONSUMER_*, SERVICE_*, POLICY_DENIED, PRICE_MISSING, RATE_LIMITED, QUOTA_EXCEEDED,
   * IDEMPOTENCY_KEY_REUSED, LIMITS_UNAVAILABLE), the dispatcher's errors, and LIMITS_UNAVAILABLE or STORAGE_UNAVAILABLE
   * when the record could not be made durable while the caller waited.
   */
  route(request: GateRequest, call: Call): Promise<GateAnswer>
  /**
   * As {@link Gate.route} for an answer that arrives piece by piece: what fails before the first output is thrown before the
   * first item. Its reader must read it to its end or return it, or the call is never recorded before its lease ends.
   */
  stream(request: GateRequest, call: Call): AsyncGenerator<GateStreamItem, void>
}

export function createGate(options: GateOptions): Gate {
  const { dispatcher, snapshots, cache, random = Math.random } = options
  const entrance = createEntrance(options)
  const recorder = createRecorder(options)

  /** Returns what is to be called when the call is over at its backend. */
  function follow({ onRevoke }: ServiceRecord, call: Call): () => void {
    return onRevoke === 'cancel' ? options.openCalls.follow(call) : nothing
  }

  async function routeTo(leg: Leg, call: Call): Promise<GateAnswer> {
    const entered = await entrance.enter(leg, 'unary', call)
    if ('kept' in entered) return { ...entered.kept, isReplayed: true }
    const { service, price, cache: cached } = entered.plan
    if (cached?.answer !== undefined) return await answerFromCache(entered, call, cached.answer)
    const release = follow(service, call)
    const dispatched = await dispatcher.dispatch(service, new BackendTask(entered.plan), call)
    release()
    const { attempts } = dispatched
    const outcome =
      'value' in dispatched ? answered(price, attempts, dispatched.value) : failed(price, attempts, dispatched.error)
    const served = await recorder.record(entered, call, outcome)
    return { ...served, body: outcome.body ?? new Uint8Array() }
  }

  async function answerFromCache(entered: Entered, call: Call, answer: CachedAnswer): Promise<GateAnswer> {
    const served = await recorder.record(entered, call, fromCache(entered.plan.price, answer))
    return { ...served, body: answer.body }
  }

  /** Runs a call at the version of the service that it is for, and at the fallbacks of that. */
  function run<T>(request: GateRequest, call: Call, at: (leg: Leg) => Promise<T>): Promise<T> {
    return withFallbacks(snapshots, chooseVersion(snapshots.current(), request, random), call, at)
  }

  /** Resolves when the first output is there. */
  async function openAt(leg: Leg, call: Call): Promise<Flow> {
    const entered = await entrance.enter(leg, 'stream', call)
    const { service, price, framing, cache: cached } = entered.plan
    if ('kept' in entered) return replay({ ...entered.kept, isReplayed: true }, framing)
    if (cached?.answer !== undefined) return replay(await answerFromCache(entered, call, cached.answer), framing)
    const release = follow(service, call)
    const opened = await dispatcher.open(service, new BackendTask(entered.plan), call)
    if ('value' in opened) {
      void opened.over.finally(release)
      return flowOf(entered, opened, call)
    }
    release()
    await recorder.record(entered, call, failed(price, opened.attempts, opened.error))
    throw opened.error
  }

  function flowOf(entered: Entered, { value: backend, attempts, over }: OpenedStream, call: Call): Flow {
    const { plan, admission } = entered
    const { price, framing, startMs } = plan
    const keptBytes = Math.max(
      admission.claim === undefined ? 0 : answerMaxBytes,
      plan.cache === undefined ? 0 : cache.maxAnswerBytes,
    )
    const read = backend.pieces[Symbol.asyncIterator]()
    const kept = keptBytes === 0 ? undefined : new KeptStream(keptBytes, read)
    const pieces = kept ?? read
    return {
      start: { kind: 'start', requestId: call.id, framing },
      pieces,
      async finish() {
        // What the caller did not read says what became of the stream, too.
        while ((await pieces.next()).done !== true);
        const [end, last] = await Promise.all([backend.end, over])
        const tail = end.verdict === 'complete' ? end.tail : new Uint8Array()
        const all = [...attempts.slice(0, -1), last]
        const outcome = streamed(price, all, backend.report(), end, kept?.body(tail), startMs)
        const served = await recorder.record(entered, call, outcome)
        return { kind: 'end', tail: splitEvents(tail, framing), ...served }
      },
    }
  }

  return {
    route: (request, call) => run(request, call, (leg) => routeTo(leg, call)),
    stream: (request, call) => new GateStream(() => run(request, call, (leg) => openAt(leg, call))),
  }
}

type OpenedStream = Extract<Opened, { readonly value: BackendStream }>

/** A stream that was served before. */
function replay({ body, ...served }: GateAnswer, framing: Framing): Flow {
  async function* pieces(): AsyncGenerator<readonly StreamPiece[]> {
    yield splitEvents(body, framing).map((bytes) => ({ kind: 'piece', bytes, hasOutput: true }))
  }
  return {
    start: { kind: 'start', requestId: served.event.requestId, framing },
    pieces: pieces(),
    finish: async () => ({ kind: 'end', tail: [], ...served }),
  }
}

function nothing(): void {}
