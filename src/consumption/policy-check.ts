/**
 * What policies make of a call: its refusal, or the request as it goes on. A repetition with the same idempotency key is
 * known by what its caller sent; everything after the check, estimates and response cache included, sees what is sent on.
 */
import type { Call } from '../call.ts'
import type { Decision } from '../policy/decision.ts'
import { type CallFacts, noRequest, type RequestFacts } from '../policy/facts.ts'
import { factsOf, type PolicyEngine } from '../policy/policy-engine.ts'
import type { PolicyTold } from '../policy/told.ts'
import { dearestCharge } from '../pricing/price.ts'
import type { Mode, ReadRequest } from '../providers/provider.ts'
import { type ConsumerRecord, priceAt, type ServiceRecord } from '../registry/records.ts'
import type { GateRequest } from './gate.ts'
import { keyIdOf, readAsked, reservedTokens } from './plan.ts'
import { policyDenial } from './refusal.ts'

/** A request that may go on, and how it was read, where it was. */
export interface Passed {
  readonly request: GateRequest
  readonly asked: ReadRequest | undefined
}

/** Key of the usage record's metadata that names what a policy marked. */
export const marksKey = 'policy_marks'

interface Parties {
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
}

export interface PolicyCheckOptions {
  readonly policy: PolicyEngine
  readonly observer: { policyDecided(told: PolicyTold): void }
  /** Unix milliseconds. */
  readonly now: () => number
}

/**
 * Throws POLICY_DENIED, and what a request that cannot be read deserves when a policy wants to know of it. With an engine that
 * answers at once it answers at once, too.
 */
export function checkPolicy(
  { policy, observer, now }: PolicyCheckOptions,
  request: GateRequest,
  mode: Mode,
  call: Call,
  { consumer, service }: Parties,
): Passed | Promise<Passed> {
  const startedMs = performance.now()
  const atMs = now()
  let asked: ReadRequest | undefined
  let known: RequestFacts | undefined
  const read = (): RequestFacts => {
    asked ??= readAsked(request, mode, service, atMs)
    known ??= requestFacts(request, asked, call, service, atMs)
    return known
  }
  const facts = (): CallFacts | undefined => {
    try {
      return factsOf({ consumer, service }, read(), call.peerAddress, atMs)
    } catch {
      // The plan refuses the request, and says why.
      return undefined
    }
  }
  const conclude = (decision: Decision): Passed => {
    const seconds = (performance.now() - startedMs) / 1000
    observer.policyDecided({ requestId: call.id, keyId: keyIdOf(call), decision, consumer, service, facts, seconds })
    if (!decision.allowed) throw policyDenial(decision, service.id)
    return passed(request, asked, decision, call)
  }
  const { payload } = request
  const decision = policy.validateConsumption({ consumer, service, payload, address: call.peerAddress, request: read })
  return decision instanceof Promise ? decision.then(conclude) : conclude(decision)
}

function passed(request: GateRequest, asked: ReadRequest | undefined, decision: Decision, call: Call): Passed {
  const { payload, marks, violations } = decision
  if (violations.length === 0) return { request, asked }
  if (payload !== undefined) call.setResponseHeader('x-tollgate-policy-redacted', 'true')
  if (marks.length > 0) call.setResponseHeader('x-tollgate-policy-marks', marks.join(','))
  const metadata = marks.length === 0 ? request.metadata : { ...request.metadata, [marksKey]: marks.join(',') }
  if (payload === undefined) return { request: { ...request, metadata }, asked }
  // What was parsed is what was sent, with all that was taken out.
  const { parsed: _, ...unparsed } = request
  return { request: { ...unparsed, payload, metadata }, asked: undefined }
}

/**
 * What policies may know of a request that is not made. Throws INVALID_ARGUMENT for a payload that the service's protocol
 * does not allow.
 */
export function describeRequest(
  request: { readonly payload: Uint8Array; readonly metadata: Readonly<Record<string, string>> },
  call: Call,
  service: ServiceRecord,
  atMs: number,
): RequestFacts {
  if (request.payload.length === 0) {
    return { ...noRequest, metadata: request.metadata, keyId: keyIdOf(call), userAgent: call.userAgent }
  }
  const asked = { ...request, consumerId: '', serviceId: service.id, idempotencyKey: '', dialect: 'native' } as const
  return requestFacts(asked, readAsked(asked, 'unary', service, atMs), call, service, atMs)
}

/** What a call would reserve is what policies about cost go by. */
function requestFacts(
  request: GateRequest,
  asked: ReadRequest,
  call: Call,
  service: ServiceRecord,
  atMs: number,
): RequestFacts {
  const price = priceAt(service, atMs)
  const reserved = reservedTokens(request, asked, service)
  return {
    model: asked.model,
    kind: asked.kind,
    stream: asked.mode === 'stream',
    size: request.payload.length,
    inputTokens: reserved.input,
    maxOutputTokens: reserved.output,
    costNanos: dearestCharge(price, reserved),
    currency: price?.currency ?? '',
    metadata: request.metadata,
    keyId: keyIdOf(call),
    userAgent: call.userAgent,
  }
}
