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
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { tightestHeaders } from '../limits/limit-headers.ts'
import type { Admission, AdmissionResult, Limits, Settled } from '../limits/limits.ts'
import { attemptIdOf } from '../metering/attempt-id.ts'
import {
  type CallStatus,
  noTokens,
  type TokenParts,
  type UsageEvent,
  type UsageSource,
} from '../metering/usage-event.ts'
import type { ConsumptionFacts, PolicyEngine } from '../policy/policy-engine.ts'
import { type Charge, chargeFor, noCharge } from '../pricing/price.ts'
import { readUsage } from '../providers/openai.ts'
import { acceptJson, requestHeaders } from '../providers/target.ts'
import type { ConsumerRecord, ServiceRecord, Tier } from '../registry/records.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import type { Attempt, Dispatcher } from '../routing/dispatcher.ts'
import { withSpan } from '../telemetry/tracing.ts'
import { claimOf, decodeAnswer, encodeAnswer, type KeptAnswer, keyReused } from './idempotency.ts'
import {
  actualUse,
  admissionOf,
  eventOf,
  keyIdOf,
  leaseGraceMs,
  type Plan,
  planCall,
  supersededEvents,
} from './plan.ts'
import { policyDenial, refusal } from './refusal.ts'
import { resolveConsumer, resolveService } from './resolve.ts'
import { createSettler } from './settlement.ts'

export interface GateOptions {
  readonly snapshots: Pick<SnapshotSource, 'current'>
  /** Undefined allows every call (ENABLE_POLICY_VALIDATION). */
  readonly policy: PolicyEngine | undefined
  readonly limits: Limits
  readonly dispatcher: Pick<Dispatcher, 'dispatch'>
  /** False takes nothing from any limit; calls are metered all the same (ENABLE_RATE_LIMITING). */
  readonly rateLimiting: boolean
  readonly observer: GateObserver
  readonly log: Logger
  /** Unix milliseconds. */
  readonly now: () => number
  /** UUIDv7. */
  readonly newId: () => string
}

/** Told of every call's end; must not throw or wait. */
export interface GateObserver {
  /** Refused before any backend was called; nothing was taken or recorded. */
  refused(refusal: GateRefusal): void
  /** Ended with a durable record. */
  recorded(event: UsageEvent, tier: Tier): void
  /** A period's settled use passed 80 or 100 percent. */
  thresholdPassed(event: UsageEvent, crossing: Settled['crossed'][number]): void
  /** The policy engine answered, after this many seconds. */
  policyChecked(seconds: number): void
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
  readonly metadata: Readonly<Record<string, string>>
  /** Empty for none. */
  readonly idempotencyKey: string
}

export interface GateAnswer {
  /** The backend's body, untouched. */
  readonly body: Uint8Array
  readonly event: UsageEvent
  readonly charge: Charge
  readonly serviceVersion: string
  /** True when an earlier call with the same idempotency key was answered so; `event` is that call's. */
  readonly isReplayed: boolean
}

export interface Gate {
  /**
   * Throws the refusals of each step (CONSUMER_*, SERVICE_*, POLICY_DENIED, PRICE_MISSING, RATE_LIMITED, QUOTA_EXCEEDED,
   * IDEMPOTENCY_KEY_REUSED, LIMITS_UNAVAILABLE), the dispatcher's errors, and LIMITS_UNAVAILABLE or STORAGE_UNAVAILABLE
   * when the record could not be made durable while the caller waited.
   */
  route(request: GateRequest, call: Call): Promise<GateAnswer>
}

/** How an attempt ended, as its record says it. */
export interface Ending {
  readonly status: CallStatus
  readonly errorReason: string
  /** Empty when no backend was called. */
  readonly endpointId: string
  /** Number of the last attempt; 0 when no backend was called. */
  readonly attempt: number
  readonly tokens: TokenParts
  readonly usageSource: UsageSource
  readonly charge: Charge
  readonly model: string
}

/** Whoever waits for another call with the same idempotency key asks again after this long, twice as long each time. */
const firstWaitMs = 10
const longestWaitMs = 200

export function createGate(options: GateOptions): Gate {
  const { limits, dispatcher, observer, log, now } = options
  const settler = createSettler(limits, now)

  async function route(request: GateRequest, call: Call): Promise<GateAnswer> {
    const snapshot = options.snapshots.current()
    const consumer = resolveConsumer(snapshot, request.consumerId)
    const service = resolveService(snapshot, request.serviceId)
    const entry = await enter(request, call, consumer, service)
    return 'kept' in entry ? replay(entry.kept, call) : serve(entry, call)
  }

  /** Policy and admission: after this the call will leave a record, unless it was answered before. */
  async function enter(
    request: GateRequest,
    call: Call,
    consumer: ConsumerRecord,
    service: ServiceRecord,
  ): Promise<Entered | { readonly kept: KeptAnswer }> {
    try {
      if (options.policy !== undefined)
        await checkPolicy(options.policy, { consumer, service, payload: request.payload })
      const { plan, admission, result } = await admit(request, call, consumer, service)
      if (result.outcome === 'answered') return { kept: decodeAnswer(result.answer) }
      if (result.outcome === 'mismatch') throw keyReused()
      if (result.outcome === 'refused') throw refusal(plan, result)
      for (const [name, value] of tightestHeaders(plan.costs, result.limits, now())) call.setResponseHeader(name, value)
      return { plan, admission }
    } catch (error) {
      if (error instanceof TollgateError) {
        const { organizationId, id: consumerId, tier } = consumer
        const caller = { requestId: call.id, organizationId, consumerId, keyId: keyIdOf(call) }
        observer.refused({ ...caller, serviceId: service.id, tier, error })
      }
      throw error
    }
  }

  async function checkPolicy(policy: PolicyEngine, facts: ConsumptionFacts): Promise<void> {
    const startedMs = performance.now()
    const decision = await policy.validateConsumption(facts)
    observer.policyChecked((performance.now() - startedMs) / 1000)
    if (!decision.allowed) throw policyDenial(decision)
  }

  /**
   * Asks until no other call holds the claim; a caller that leaves meanwhile ends the asking. The call is planned anew each
   * time: its month, its price and its lease are those of the moment at which it is admitted.
   */
  async function admit(
    request: GateRequest,
    call: Call,
    consumer: ConsumerRecord,
    service: ServiceRecord,
  ): Promise<Entered & { readonly result: Exclude<AdmissionResult, { readonly outcome: 'running' }> }> {
    const { rateLimiting, newId } = options
    const { idempotencyKey: key, payload } = request
    const claim = key === '' ? undefined : claimOf(key, consumer.id, service.id, payload)
    for (let waitMs = firstWaitMs; ; waitMs = Math.min(2 * waitMs, longestWaitMs)) {
      const { limitRules: rules } = options.snapshots.current()
      const plan = planCall(request, call, consumer, service, { rules, rateLimiting, newId, nowMs: now() })
      const admission = admissionOf(plan, call, claim)
      const result = await withSpan('admit', () => limits.admit(admission))
      if (result.outcome !== 'running') return { plan, admission, result }
      await delay(waitMs, undefined, { signal: call.signal }).catch(() => call.signal.throwIfAborted())
    }
  }

  async function serve({ plan, admission }: Entered, call: Call): Promise<GateAnswer> {
    const outcome = await askBackend(plan, call)
    const { body, charge, error: failure } = outcome
    const event = eventOf(plan, call, { ...outcome, durationMs: now() - plan.startMs })
    const answer = { event, charge, serviceVersion: plan.service.version, body }
    const keepsAnswer = admission.claim !== undefined && failure === undefined
    const settlement = {
      admission,
      actual: actualUse(plan, event),
      event,
      ...(keepsAnswer ? { answer: encodeAnswer(answer) } : {}),
    }
    try {
      tellRecorded(event, plan, await withSpan('settle', () => settler.settle(settlement)))
    } catch (error) {
      log.error({ err: error, requestId: call.id }, 'usage could not be recorded; it is tried until the lease ends')
      void settler.settleLate(settlement, call.deadlineMs + leaseGraceMs).then((settled) => {
        if (settled !== undefined) tellRecorded(event, plan, settled)
      })
      throw failure ?? error
    }
    if (outcome.attempts.length > 1) await recordSuperseded(plan, event, outcome.attempts)
    if (failure !== undefined) throw failure
    return { ...answer, isReplayed: false }
  }

  function replay(kept: KeptAnswer, call: Call): GateAnswer {
    call.setResponseHeader('idempotent-replayed', 'true')
    return { ...kept, isReplayed: true }
  }

  /** No money is in these records, so the caller is not told when they cannot be written. */
  async function recordSuperseded(plan: Plan, event: UsageEvent, attempts: readonly Attempt[]): Promise<void> {
    const events = supersededEvents(plan, event, attempts)
    await limits.correct({ events, counters: [] }).catch((error: unknown) => {
      log.error({ err: error, requestId: event.requestId }, 'attempts before the last one could not be recorded')
    })
  }

  /** Sends the call to a backend, as often as it takes and may be, and says what came of it. Never throws. */
  async function askBackend({ attemptId, request, service, price }: Plan, call: Call): Promise<Outcome> {
    const { payload } = request
    const dispatched = await dispatcher.dispatch(
      service,
      {
        attemptId: (number) => attemptIdOf(attemptId, number),
        prepare: ({ url }, credential) => {
          return { url, headers: requestHeaders('bearer', { url, model: '', credential }, acceptJson), body: payload }
        },
        read(body) {
          const { tokens, source, model } = readUsage(body, payload.length)
          return { body, tokens, usageSource: source, model, charge: chargeFor(price, tokens) }
        },
      },
      call,
    )
    const { attempts } = dispatched
    const last = { attempts, attempt: attempts.length, endpointId: attempts.at(-1)?.endpointId ?? '' }
    if ('value' in dispatched) return { ...last, status: 'succeeded', errorReason: '', ...dispatched.value }
    const { error } = dispatched
    const charge = noCharge(price)
    return { ...last, ...nothingUsed, charge, status: statusOf(error), errorReason: error.reason, error }
  }

  /** The record is durable: nothing that an observer does may make the caller believe otherwise. */
  function tellRecorded(event: UsageEvent, plan: Plan, { crossed }: Settled): void {
    try {
      observer.recorded(event, plan.consumer.tier)
      for (const crossing of crossed) observer.thresholdPassed(event, crossing)
    } catch (error) {
      log.error({ err: error, requestId: event.requestId }, 'an observer of recorded calls failed')
    }
  }

  return { route }
}

const nothingUsed = {
  tokens: noTokens,
  usageSource: 'none',
  model: '',
  body: new Uint8Array(),
} as const

interface Entered {
  readonly plan: Plan
  readonly admission: Admission
}

interface Outcome extends Ending {
  readonly attempts: readonly Attempt[]
  readonly body: Uint8Array
  readonly error?: TollgateError
}

function statusOf(error: TollgateError): CallStatus {
  if (error.reason === 'DEADLINE_EXCEEDED') return 'deadline_exceeded'
  if (error.reason === 'CANCELLED' || error.reason === 'SHUTTING_DOWN') return 'cancelled'
  return 'failed'
}
