/**
 * The gate: the straight path of a call.
 *
 * resolve → policy → admit → dispatch → price → settle and record → answer
 *
 * From admission on, every way out goes through settlement: an admitted call leaves exactly one usage record, and the
 * caller hears of its end only after that record is durable. If this process dies in between, the reservation's lease
 * runs out and the record says "abandoned".
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { limitHeaders } from '../limits/limit-headers.ts'
import type { Admission, LimitCost, LimitState, Limits, Settlement } from '../limits/limits.ts'
import { limitsFor } from '../limits/tiers.ts'
import type { CallStatus, TokenParts, UsageEvent, UsageSource } from '../metering/usage-event.ts'
import { noTokens, totalTokens } from '../metering/usage-event.ts'
import type { ConsumptionFacts, PolicyEngine } from '../policy/policy-engine.ts'
import { type Charge, chargeFor, unpriced } from '../pricing/price.ts'
import { estimateTokens, readRequest, readUsage } from '../providers/openai.ts'
import type { ConsumerRecord, EndpointRecord, ServiceRecord, Tier } from '../registry/records.ts'
import { priceAt } from '../registry/records.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import type { Dispatcher } from '../routing/dispatcher.ts'
import { traceparentOf, withSpan } from '../telemetry/tracing.ts'
import { policyDenial, refusal } from './refusal.ts'
import { resolveConsumer, resolveService } from './resolve.ts'

export interface GateOptions {
  readonly snapshots: Pick<SnapshotSource, 'current'>
  /** Undefined allows every call (ENABLE_POLICY_VALIDATION). */
  readonly policy: PolicyEngine | undefined
  readonly limits: Limits
  readonly dispatcher: Dispatcher
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
  /** The policy engine answered, after this many seconds. */
  policyChecked(seconds: number): void
}

/** A refused call: whose it was, and why. */
export interface GateRefusal {
  /** UUIDv7 of the call. */
  readonly requestId: string
  readonly organizationId: string
  readonly consumerId: string
  /** Empty when no key called. */
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
}

export interface GateAnswer {
  /** The backend's body, untouched. */
  readonly body: Uint8Array
  readonly event: UsageEvent
  readonly charge: Charge
  readonly service: ServiceRecord
}

export interface Gate {
  /**
   * Throws the refusals of each step (CONSUMER_*, SERVICE_*, POLICY_DENIED, RATE_LIMITED, QUOTA_EXCEEDED,
   * LIMITS_UNAVAILABLE), the dispatcher's errors, and LIMITS_UNAVAILABLE or STORAGE_UNAVAILABLE when the record could not
   * be made durable while the caller waited.
   */
  route(request: GateRequest, call: Call): Promise<GateAnswer>
}

/** A reservation outlives its call's deadline by this much before it counts as abandoned. */
const leaseGraceMs = 15_000

/** Settlement is tried again this often: a settlement that failed half-way is a no-op the second time. */
const settleAttempts = 5
const settlePauseMs = 50

/** After these attempts the caller is told, and settlement goes on at this pace, for so many calls at once. */
const latePauseMs = 500
const maxLate = 10_000

export function createGate(options: GateOptions): Gate {
  const { limits, dispatcher, observer, log, now, newId } = options
  let late = 0

  async function route(request: GateRequest, call: Call): Promise<GateAnswer> {
    const snapshot = options.snapshots.current()
    const consumer = resolveConsumer(snapshot, request.consumerId)
    const service = resolveService(snapshot, request.serviceId)
    const plan = await enter(request, call, consumer, service)
    return serve(plan, call)
  }

  /** Policy and admission: after this the call will leave a record. */
  async function enter(
    request: GateRequest,
    call: Call,
    consumer: ConsumerRecord,
    service: ServiceRecord,
  ): Promise<Plan> {
    try {
      if (options.policy !== undefined)
        await checkPolicy(options.policy, { consumer, service, payload: request.payload })
      const plan = planCall(request, call, consumer, service)
      announce(call, plan.costs, await admit(plan, call), now())
      return plan
    } catch (error) {
      if (error instanceof TollgateError) observer.refused(refusalOf(call, consumer, service, error))
      throw error
    }
  }

  async function checkPolicy(policy: PolicyEngine, facts: ConsumptionFacts): Promise<void> {
    const startedMs = performance.now()
    const decision = await policy.validateConsumption(facts)
    observer.policyChecked((performance.now() - startedMs) / 1000)
    if (!decision.allowed) throw policyDenial(decision)
  }

  function planCall(request: GateRequest, call: Call, consumer: ConsumerRecord, service: ServiceRecord): Plan {
    const [endpoint] = service.endpoints
    if (endpoint === undefined) throw new TollgateError('SERVICE_INACTIVE', `Service ${service.name} has no endpoint.`)
    const startMs = now()
    const facts = readRequest(request.payload)
    const reserved: TokenParts = {
      ...noTokens,
      input: estimateTokens(request.payload.length),
      output: facts.maxOutputTokens ?? service.defaultMaxOutputTokens,
    }
    const [requests, tokens] = limitsFor(consumer, service.id, startMs)
    return {
      attemptId: newId(),
      request,
      consumer,
      service,
      endpoint,
      startMs,
      reserved,
      costs: options.rateLimiting
        ? [
            { limit: requests, amount: 1 },
            { limit: tokens, amount: totalTokens(reserved) },
          ]
        : [],
      traceparent: traceparentOf(call.span),
    }
  }

  async function admit(plan: Plan, call: Call): Promise<readonly LimitState[]> {
    const admission: Admission = {
      id: call.id,
      organizationId: plan.consumer.organizationId,
      costs: plan.costs,
      leaseMs: Math.max(0, call.deadlineMs - plan.startMs) + leaseGraceMs,
      ifAbandoned: eventOf(plan, call, {
        status: 'abandoned',
        errorReason: 'INTERNAL',
        attempt: 1,
        tokens: plan.reserved,
        usageSource: 'estimated',
        charge: chargeFor(priceAt(plan.service, plan.startMs), plan.reserved),
        model: '',
        durationMs: 0,
      }),
    }
    const result = await withSpan('admit', () => limits.admit(admission))
    if (result.admitted) return result.limits
    throw refusal(plan.costs, result)
  }

  async function serve(plan: Plan, call: Call): Promise<GateAnswer> {
    const outcome = await attempt(plan, call)
    const event = eventOf(plan, call, { ...outcome, durationMs: now() - plan.startMs })
    const requests = outcome.attempt === 0 ? 0 : 1
    const actual = plan.costs.length === 0 ? [] : [requests, totalTokens(event.tokens)]
    const settlement = { id: call.id, organizationId: plan.consumer.organizationId, actual, event }
    try {
      await withSpan('settle', () => settle(settlement))
    } catch (error) {
      log.error({ err: error, requestId: call.id }, 'usage could not be recorded; it is tried until the lease ends')
      void settleLate(settlement, plan, call)
      throw outcome.error ?? error
    }
    tellRecorded(event, plan)
    if (outcome.error !== undefined) throw outcome.error
    return { body: outcome.body, event, charge: outcome.charge, service: plan.service }
  }

  /** Calls the backend and says what came of it. Never throws. */
  async function attempt(plan: Plan, call: Call): Promise<Outcome> {
    let attempts = 0
    try {
      // The caller may have left during admission.
      call.signal.throwIfAborted()
      attempts = 1
      const { id: serviceId } = plan.service
      const { payload } = plan.request
      const { body, tokens, source, model } = await dispatcher.dispatch(
        plan.endpoint,
        { id: plan.attemptId, serviceId, payload, read: (body) => ({ body, ...readUsage(body, payload.length) }) },
        call,
      )
      const charge = chargeFor(priceAt(plan.service, plan.startMs), tokens)
      return { status: 'succeeded', errorReason: '', attempt: 1, tokens, usageSource: source, charge, model, body }
    } catch (cause) {
      const error =
        cause instanceof TollgateError
          ? cause
          : new TollgateError('INTERNAL', 'The call failed inside the gate.', { cause })
      return {
        status: statusOf(error),
        errorReason: error.reason,
        attempt: error.reason === 'BREAKER_OPEN' ? 0 : attempts,
        tokens: noTokens,
        usageSource: 'none',
        charge: unpriced,
        model: '',
        body: noBody,
        error,
      }
    }
  }

  async function settle(settlement: Settlement): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await limits.settle(settlement)
      } catch (error) {
        if (attempt === settleAttempts) throw error
        await delay(settlePauseMs * 2 ** attempt)
      }
    }
  }

  /**
   * Goes on after the caller was told, because what was used is known exactly here, and the lease would record the
   * reservation instead. Holds up no shutdown: what is left then is recorded as abandoned.
   */
  async function settleLate(settlement: Settlement, plan: Plan, call: Call): Promise<void> {
    if (late >= maxLate) return
    late += 1
    try {
      for (const untilMs = call.deadlineMs + leaseGraceMs; now() < untilMs; ) {
        await delay(latePauseMs, undefined, { ref: false })
        const isSettled = await limits.settle(settlement).then(
          () => true,
          () => false,
        )
        if (isSettled) return tellRecorded(settlement.event, plan)
      }
    } finally {
      late -= 1
    }
  }

  /** The record is durable: nothing that an observer does may make the caller believe otherwise. */
  function tellRecorded(event: UsageEvent, plan: Plan): void {
    try {
      observer.recorded(event, plan.consumer.tier)
    } catch (error) {
      log.error({ err: error, requestId: event.requestId }, 'an observer of recorded calls failed')
    }
  }

  return { route }
}

const noBody = new Uint8Array()

/** All that is fixed about a call before it is admitted. */
interface Plan {
  readonly attemptId: string
  readonly request: GateRequest
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
  readonly endpoint: EndpointRecord
  readonly startMs: number
  /** Estimated input and the most output that the request allows. */
  readonly reserved: TokenParts
  readonly costs: readonly LimitCost[]
  readonly traceparent: string
}

interface Ending {
  readonly status: CallStatus
  readonly errorReason: string
  /** 0 when no backend was called. */
  readonly attempt: number
  readonly tokens: TokenParts
  readonly usageSource: UsageSource
  readonly charge: Charge
  readonly model: string
}

interface Outcome extends Ending {
  readonly body: Uint8Array
  readonly error?: TollgateError
}

function eventOf(plan: Plan, call: Call, ending: Ending & { readonly durationMs: number }): UsageEvent {
  return {
    id: plan.attemptId,
    requestId: call.id,
    organizationId: plan.consumer.organizationId,
    consumerId: plan.consumer.id,
    serviceId: plan.service.id,
    endpointId: ending.attempt === 0 ? '' : plan.endpoint.id,
    keyId: keyIdOf(call),
    startMs: plan.startMs,
    requests: 1,
    corrects: '',
    durationMs: ending.durationMs,
    status: ending.status,
    errorReason: ending.errorReason,
    tokens: ending.tokens,
    usageSource: ending.usageSource,
    costNanos: ending.charge.nanos,
    currency: ending.charge.currency,
    priceVersion: ending.charge.priceVersion,
    model: ending.model,
    attempt: ending.attempt,
    metadata: plan.request.metadata,
    traceparent: plan.traceparent,
  }
}

function refusalOf(call: Call, consumer: ConsumerRecord, service: ServiceRecord, error: TollgateError): GateRefusal {
  return {
    requestId: call.id,
    organizationId: consumer.organizationId,
    consumerId: consumer.id,
    keyId: keyIdOf(call),
    serviceId: service.id,
    tier: consumer.tier,
    error,
  }
}

function keyIdOf({ principal }: Call): string {
  return principal.kind === 'key' ? principal.keyId : ''
}

function statusOf(error: TollgateError): CallStatus {
  if (error.reason === 'DEADLINE_EXCEEDED') return 'deadline_exceeded'
  if (error.reason === 'CANCELLED' || error.reason === 'SHUTTING_DOWN') return 'cancelled'
  return 'failed'
}

/** Tells the caller where it stands with its request bucket, in the headers that its libraries know. */
function announce(call: Call, costs: readonly LimitCost[], states: readonly LimitState[], nowMs: number): void {
  const limit = costs[0]?.limit
  const state = states[0]
  if (limit === undefined || state === undefined) return
  for (const [name, value] of limitHeaders({ ...state, capacity: limit.capacity }, nowMs)) {
    call.setResponseHeader(name, value)
  }
}
