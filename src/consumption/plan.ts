import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { CallLimit, LimitedCall, LimitRules } from '../limits/call-limits.ts'
import type { LimitsOfCall } from '../limits/known-limits.ts'
import type { Admission, Claim, Limit, LimitCost, LimitUnit } from '../limits/limits.ts'
import { recordIdOf } from '../metering/attempt-id.ts'
import { noTokens, type TokenParts, totalTokens, type UsageEvent } from '../metering/usage-event.ts'
import { dearestCharge, noCharge } from '../pricing/price.ts'
import { estimateTokens } from '../providers/counts.ts'
import type { Framing } from '../providers/event-stream.ts'
import type { Mode, ReadRequest } from '../providers/provider.ts'
import {
  type ConsumerRecord,
  type PriceRecord,
  priceAt,
  type ResponseCachePolicy,
  type ServiceRecord,
} from '../registry/records.ts'
import type { Attempt } from '../routing/dispatcher.ts'
import { traceparentOf } from '../telemetry/tracing.ts'
import { providerOf } from './backend-task.ts'
import type { GateRequest } from './gate.ts'
import type { Ending } from './outcome.ts'
import type { CachedAnswer } from './response-cache.ts'

/** All that is fixed about a call before it is admitted. */
export interface Plan {
  /** UUIDv7 of the call's usage event; the ids of its attempts follow from it. */
  readonly attemptId: string
  readonly request: GateRequest
  /** What the request asks of a backend. */
  readonly asked: ReadRequest
  /** Of the caller's stream. */
  readonly framing: Framing
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
  /** In force at `startMs`; undefined when the service is unpriced. */
  readonly price: PriceRecord | undefined
  /** Unix milliseconds. Its UTC month is the month of the call in limits, ledger and statistics, however long it lasts. */
  readonly startMs: number
  /** Estimated input and the most output that the request allows. */
  readonly reserved: TokenParts
  /** What it takes from every limit. */
  readonly costs: readonly PlannedCost[]
  readonly cache: Cacheable | undefined
  readonly traceparent: string
}

/** A call to a service with a response cache. */
export interface Cacheable {
  readonly key: string
  readonly policy: ResponseCachePolicy
  /** Undefined when the backend must be asked. With it the call is a request, and uses nothing else. */
  readonly answer: CachedAnswer | undefined
}

/** What a call takes from a limit, and whence the limit comes. */
export interface PlannedCost extends LimitCost {
  readonly limit: CallLimit
}

export interface PlanContext {
  readonly rules: LimitRules
  /** Undefined: the call is subject to no limit. */
  readonly limitsOf: LimitsOfCall | undefined
  /** Of a call whose answer may come from the response cache, or go into it. */
  readonly cache: Cacheable | undefined
  /** Of a request that was read before; default it is read now. */
  readonly asked?: ReadRequest | undefined
  readonly newId: () => string
  readonly nowMs: number
}

/** A reservation outlives its call's deadline by this much before it counts as abandoned. */
export const leaseGraceMs = 15_000

/**
 * Fixes what a call will be: its attempt, its price, what it reserves. Throws INVALID_ARGUMENT for a payload that the
 * provider's protocol does not allow, SERVICE_INACTIVE, and PRICE_MISSING when a money budget applies to a call that has
 * no price in the budget's currency.
 */
export function planCall(
  request: GateRequest,
  mode: Mode,
  call: Call,
  consumer: ConsumerRecord,
  service: ServiceRecord,
  context: PlanContext,
): Plan {
  const startMs = context.nowMs
  const asked = context.asked ?? readAsked(request, mode, service, startMs)
  const isCached = context.cache?.answer !== undefined
  const reserved = reservedTokens(request, asked, service)
  const price = priceAt(service, startMs)
  const { keyId, keyTier } = keyOf(call)
  const limited = { consumer, serviceId: service.id, keyId, keyTier, atMs: startMs }
  const limits = context.limitsOf?.(context.rules, limited) ?? noLimits
  return {
    attemptId: context.newId(),
    request,
    asked,
    framing: providerOf(service).framing ?? 'sse',
    consumer,
    service,
    price,
    startMs,
    reserved,
    costs: limits.map((limit) => ({
      limit,
      amount: reservation(limit, service, price, isCached ? undefined : reserved),
    })),
    cache: context.cache,
    traceparent: traceparentOf(call.span),
  }
}

const noLimits: readonly CallLimit[] = []

/** What a request asks of a backend. Throws as {@link planCall}. */
export function readAsked(request: GateRequest, mode: Mode, service: ServiceRecord, startMs: number): ReadRequest {
  if (service.endpoints.length === 0) {
    throw new TollgateError('SERVICE_INACTIVE', `Service ${service.name} has no endpoint.`)
  }
  const { payload, parsed, dialect, kind } = request
  return providerOf(service).readRequest({ payload, parsed, mode, dialect, kind, startMs })
}

/** Estimated input and the most output that a request allows. */
export function reservedTokens({ payload }: GateRequest, asked: ReadRequest, service: ServiceRecord): TokenParts {
  return {
    ...noTokens,
    input: estimateTokens(payload.length, asked.model),
    output: asked.maxOutputTokens ?? service.defaultMaxOutputTokens * asked.choices,
  }
}

/** The admission that a plan asks for. Abandoned, the call is recorded at what it reserved, in tokens and in money. */
export function admissionOf(plan: Plan, call: Call, reservationId: string, claim: Claim | undefined): Admission {
  const admission = {
    id: reservationId,
    costs: plan.costs,
    leaseMs: Math.max(0, call.deadlineMs - plan.startMs) + leaseGraceMs,
    ifAbandoned: eventOf(plan, call, plan.cache?.answer === undefined ? mostOf(plan) : nothingOf(plan), 0),
  }
  return claim === undefined ? admission : { ...admission, claim }
}

const abandoned = { status: 'abandoned', errorReason: 'INTERNAL', model: '', firstTokenMs: 0 } as const

/** All that a plan reserved. */
function mostOf({ service, price, reserved }: Plan): Ending {
  // Which endpoint it would have been is only known where there is no choice.
  const endpointId = service.endpoints.length === 1 ? (service.endpoints[0]?.id ?? '') : ''
  const charge = { ...noCharge(price), nanos: dearestCharge(price, reserved) }
  return { ...abandoned, endpointId, attempt: 1, tokens: reserved, usageSource: 'estimated', charge }
}

/** What an answer from the response cache uses. */
function nothingOf({ price }: Plan): Ending {
  return { ...abandoned, endpointId: '', attempt: 0, tokens: noTokens, usageSource: 'cache', charge: noCharge(price) }
}

/** What a call used of each limit that it took from. */
export function actualUse(plan: Plan, event: UsageEvent): number[] {
  return plan.costs.map(({ limit }) => usedOf(limit.unit, event))
}

function usedOf(unit: LimitUnit, event: UsageEvent): number {
  switch (unit) {
    case 'requests':
      return event.attempt === 0 && event.usageSource !== 'cache' ? 0 : 1
    case 'tokens':
      return totalTokens(event.tokens)
    case 'nanos':
      return event.costNanos
    case 'calls':
      return 0
  }
}

export function eventOf(plan: Plan, call: Call, ending: Ending, durationMs: number): UsageEvent {
  return {
    id: plan.attemptId,
    requestId: call.id,
    organizationId: plan.consumer.organizationId,
    consumerId: plan.consumer.id,
    serviceId: plan.service.id,
    endpointId: ending.endpointId,
    keyId: keyIdOf(call),
    startMs: plan.startMs,
    durationMs,
    firstTokenMs: ending.firstTokenMs,
    status: ending.status,
    errorReason: ending.errorReason,
    tokens: ending.tokens,
    usageSource: ending.usageSource,
    costNanos: ending.charge.nanos,
    currency: ending.charge.currency,
    priceVersion: ending.charge.priceVersion,
    model: ending.model,
    attempt: ending.attempt,
    requests: 1,
    corrects: '',
    metadata: plan.request.metadata,
    traceparent: plan.traceparent,
  }
}

/**
 * The records of the attempts before the last one: they count nothing, at the price of the call, and say where it was in
 * vain.
 */
export function supersededEvents(plan: Plan, event: UsageEvent, attempts: readonly Attempt[]): UsageEvent[] {
  return attempts.slice(0, -1).map(({ number, endpointId, durationMs, error }) => ({
    ...event,
    id: recordIdOf(plan.attemptId, number, attempts.length),
    endpointId,
    durationMs,
    firstTokenMs: 0,
    status: 'failed',
    errorReason: error?.reason ?? '',
    tokens: noTokens,
    usageSource: 'none',
    costNanos: 0,
    model: '',
    attempt: number,
    requests: 0,
  }))
}

/** What decides about the limits of a call's key. */
export function keyOf({ principal }: Call): Pick<LimitedCall, 'keyId' | 'keyTier'> {
  return principal.kind === 'anonymous' || principal.keyId === undefined
    ? { keyId: '' }
    : { keyId: principal.keyId, keyTier: principal.keyTier }
}

/** Empty for a caller without a key. */
export function keyIdOf({ principal }: Call): string {
  return principal.kind === 'anonymous' ? '' : (principal.keyId ?? '')
}

/** What a call takes from a limit; one that reserves nothing is a request all the same. */
function reservation(
  limit: Limit,
  service: ServiceRecord,
  price: PriceRecord | undefined,
  reserved: TokenParts | undefined,
): number {
  if (limit.unit === 'nanos') {
    const currency = limit.kind === 'period' ? limit.currency : ''
    if (price?.currency !== currency) throw priceMissing(service, limit.subject, currency)
  }
  if (reserved === undefined) return limit.unit === 'tokens' || limit.unit === 'nanos' ? 0 : 1
  return reservedUnits(limit.unit, price, reserved)
}

/** What a call that reserves these tokens takes from a limit of this unit; of money, in the price's currency. */
export function reservedUnits(unit: LimitUnit, price: PriceRecord | undefined, reserved: TokenParts): number {
  switch (unit) {
    case 'requests':
    case 'calls':
      return 1
    case 'tokens':
      return totalTokens(reserved)
    case 'nanos':
      return dearestCharge(price, reserved)
  }
}

function priceMissing(service: ServiceRecord, subject: string, currency: string): TollgateError {
  return new TollgateError(
    'PRICE_MISSING',
    `Service ${service.name} ${service.version} has no price in ${currency}, and ${subject} has a budget in ${currency}; give the service a price in ${currency}, or remove the budget.`,
    { metadata: { serviceId: service.id, subject, currency } },
  )
}
