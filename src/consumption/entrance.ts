import { setTimeout as delay } from 'node:timers/promises'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { createKnownLimits } from '../limits/known-limits.ts'
import { tellTightest } from '../limits/limit-headers.ts'
import type { Admission, AdmissionResult, Claim, Limits } from '../limits/limits.ts'
import type { Mode } from '../providers/provider.ts'
import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import { withSpan } from '../telemetry/tracing.ts'
import { deprecationHeaders } from './deprecation-headers.ts'
import type { Leg } from './fallback.ts'
import type { GateObserver, GateOptions, GateRequest } from './gate.ts'
import { claimOf, decodeAnswer, type KeptAnswer, keyReused } from './idempotency.ts'
import { admissionOf, type Cacheable, keyIdOf, type Plan, planCall } from './plan.ts'
import { checkPolicy, type Passed } from './policy-check.ts'
import { refusal } from './refusal.ts'
import { requireModelScope, requireServiceScope, resolveConsumer, resolveService } from './resolve.ts'
import { cacheKeyOf } from './response-cache.ts'

/** A call that was admitted: from here on, every way out must settle it. */
export interface Entered {
  readonly plan: Plan
  readonly admission: Admission
}

/** A call that was answered before; nothing was taken for it. */
export interface Kept {
  readonly plan: Plan
  readonly kept: KeptAnswer
}

/** A call that policies let pass, until it is admitted. */
interface Coming extends Passed {
  readonly mode: Mode
  readonly call: Call
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
  readonly claim: Claim | undefined
  readonly cache: Cacheable | undefined
  readonly reservationId: string
}

export interface Entrance {
  /**
   * Resolve, policy, plan, admit: after this the call will leave a record, unless it was answered before. Throws the
   * refusals of each step, which take nothing.
   */
  enter(leg: Leg, mode: Mode, call: Call): Promise<Entered | Kept>
}

/** Whoever waits for another call with the same idempotency key asks again after this long, twice as long each time. */
const firstWaitMs = 10
const longestWaitMs = 200

/** What of the gate's parts a call needs to enter. */
export interface EntranceOptions
  extends Pick<GateOptions, 'snapshots' | 'policy' | 'cache' | 'rateLimiting' | 'now' | 'newId'> {
  readonly limits: Pick<Limits, 'admit'>
  readonly observer: Pick<GateObserver, 'refused' | 'policyDecided' | 'cacheAsked'>
}

export function createEntrance(options: EntranceOptions): Entrance {
  const { limits, observer, now } = options
  const limitsOf = options.rateLimiting ? createKnownLimits() : undefined

  /** Also with refusals: whoever cannot call it today should not learn of its end when it is too late. */
  function warn({ status, deprecation }: ServiceRecord, call: Call): void {
    if (status !== 'deprecated' || deprecation === undefined) return
    for (const [name, value] of deprecationHeaders(deprecation)) call.setResponseHeader(name, value)
  }

  /** Undefined for a service without a response cache. */
  function cacheableOf(
    request: GateRequest,
    mode: Mode,
    call: Call,
    consumer: ConsumerRecord,
    service: ServiceRecord,
  ): Cacheable | undefined {
    const { responseCache: policy } = service
    if (policy === undefined) return undefined
    const asked = (call.header('cache-control') ?? '').toLowerCase().split(/[ ,]+/)
    if (asked.includes('no-store')) return undefined
    const key = cacheKeyOf(request, mode, consumer, service, policy)
    return { key, policy, answer: asked.includes('no-cache') ? undefined : options.cache.get(key) }
  }

  function tellCache({ id }: ServiceRecord, { answer }: Cacheable, call: Call): void {
    const isHit = answer !== undefined
    observer.cacheAsked(id, isHit)
    call.setResponseHeader('x-tollgate-cache', isHit ? 'hit' : 'miss')
  }

  function comingOf(
    { request: sent, takenOver }: Leg,
    { request, asked }: Passed,
    mode: Mode,
    call: Call,
    consumer: ConsumerRecord,
    service: ServiceRecord,
  ): Coming {
    // A repetition asks for the same, whichever version it would be given.
    const named = request.splitName ?? (takenOver ?? service).id
    return {
      request,
      asked,
      mode,
      call,
      consumer,
      service,
      claim: request.idempotencyKey === '' ? undefined : claimOf(sent, mode, consumer.id, named),
      cache: cacheableOf(request, mode, call, consumer, service),
      reservationId: takenOver === undefined ? call.id : options.newId(),
    }
  }

  /** Its month, its price and its lease are those of the moment at which it asks to be admitted. */
  function planned({ request, asked, mode, call, consumer, service, claim, cache, reservationId }: Coming): Entered {
    const { newId } = options
    const { limitRules: rules } = options.snapshots.current()
    const context = { rules, limitsOf, cache, asked, newId, nowMs: now() }
    const plan = planCall(request, mode, call, consumer, service, context)
    requireModelScope(call.principal, modelOf(plan))
    return { plan, admission: admissionOf(plan, call, reservationId, claim) }
  }

  function admit({ admission }: Entered): Promise<AdmissionResult> {
    return withSpan('admit', () => limits.admit(admission))
  }

  return {
    async enter(leg, mode, call) {
      const { request } = leg
      const snapshot = options.snapshots.current()
      const consumer = resolveConsumer(snapshot, request.consumerId)
      const service = resolveService(snapshot, request.serviceId)
      if (leg.takenOver === undefined) warn(service, call)
      try {
        requireServiceScope(call.principal, service)
        const { policy } = options
        const checked =
          policy === undefined
            ? { request, asked: undefined }
            : checkPolicy({ policy, observer, now }, request, mode, call, { consumer, service })
        const passed = checked instanceof Promise ? await checked : checked
        const coming = comingOf(leg, passed, mode, call, consumer, service)
        let entered = planned(coming)
        let result = await admit(entered)
        // Until no other call holds the claim; a caller that leaves meanwhile ends the asking.
        for (let waitMs = firstWaitMs; result.outcome === 'running'; waitMs = Math.min(2 * waitMs, longestWaitMs)) {
          await delay(waitMs, undefined, { signal: call.signal }).catch(() => call.signal.throwIfAborted())
          entered = planned(coming)
          result = await admit(entered)
        }
        const { plan } = entered
        if (result.outcome === 'answered') {
          call.setResponseHeader('idempotent-replayed', 'true')
          return { plan, kept: decodeAnswer(result.answer) }
        }
        if (result.outcome === 'mismatch') throw keyReused()
        if (result.outcome === 'refused') throw refusal(plan, result)
        tellTightest(plan.costs, result.limits, now(), (name, value) => call.setResponseHeader(name, value))
        if (plan.cache !== undefined) tellCache(service, plan.cache, call)
        return entered
      } catch (error) {
        if (error instanceof TollgateError) {
          const { organizationId, id: consumerId, tier } = consumer
          const caller = { requestId: call.id, organizationId, consumerId, keyId: keyIdOf(call) }
          observer.refused({ ...caller, serviceId: service.id, tier, error })
        }
        throw error
      }
    },
  }
}

/** What the caller asks for: in the OpenAI API the model is the service, elsewhere what the payload names, if it does. */
function modelOf({ request, asked, service }: Plan): string {
  return request.dialect === 'openai' || asked.model === '' ? service.name : asked.model
}
