import type { Call } from '../call.ts'
import type { Settled } from '../limits/limits.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { Attempt } from '../routing/dispatcher.ts'
import { withSpan } from '../telemetry/tracing.ts'
import type { Entered } from './entrance.ts'
import type { GateOptions, Served } from './gate.ts'
import { encodeAnswer } from './idempotency.ts'
import type { Outcome } from './outcome.ts'
import { actualUse, eventOf, leaseGraceMs, type Plan, supersededEvents } from './plan.ts'
import { createSettler } from './settlement.ts'

export interface Recorder {
  /**
   * Settles a call and makes its record durable. Throws the outcome's own error, and what the limits throw when that could
   * not be done while the caller waited.
   */
  record(entered: Entered, call: Call, outcome: Outcome): Promise<Served>
}

export function createRecorder(options: GateOptions): Recorder {
  const { limits, observer, log, now } = options
  const settler = createSettler(limits, now)

  /** The record is durable: nothing that an observer does may make the caller believe otherwise. */
  function tellRecorded(event: UsageEvent, plan: Plan, { crossed }: Settled): void {
    try {
      observer.recorded(event, plan.consumer.tier)
      for (const crossing of crossed) observer.thresholdPassed(event, crossing)
    } catch (error) {
      log.error({ err: error, requestId: event.requestId }, 'an observer of recorded calls failed')
    }
  }

  /** No money is in these records, so the caller is not told when they cannot be written. */
  async function recordSuperseded(plan: Plan, event: UsageEvent, attempts: readonly Attempt[]): Promise<void> {
    const events = supersededEvents(plan, event, attempts)
    await limits.correct({ events, counters: [] }).catch((error: unknown) => {
      log.error({ err: error, requestId: event.requestId }, 'attempts before the last one could not be recorded')
    })
  }

  /** Keeps an answer of a backend for the requests that are the same. */
  function keep({ cache }: Plan, { body, model, finishReason, usageSource }: Outcome): void {
    if (cache === undefined || usageSource === 'cache' || body === undefined) return
    options.cache.set(cache.key, { body, model, finishReason }, cache.policy)
  }

  return {
    async record({ plan, admission }, call, outcome) {
      const { charge, finishReason, body, attempts, error: failure } = outcome
      const event = eventOf(plan, call, outcome, now() - plan.startMs)
      const served = { event, charge, serviceVersion: plan.service.version, finishReason }
      const keepsAnswer = admission.claim !== undefined && failure === undefined
      const used = { admission, actual: actualUse(plan, event), event }
      const settlement = keepsAnswer ? { ...used, answer: encodeAnswer({ ...served, body }) } : used
      try {
        tellRecorded(event, plan, await withSpan('settle', () => settler.settle(settlement)))
      } catch (error) {
        log.error({ err: error, requestId: call.id }, 'usage could not be recorded; it is tried until the lease ends')
        void settler.settleLate(settlement, call.deadlineMs + leaseGraceMs).then((settled) => {
          if (settled !== undefined) tellRecorded(event, plan, settled)
        })
        throw failure ?? error
      }
      if (attempts.length > 1) await recordSuperseded(plan, event, attempts)
      if (failure !== undefined) throw failure
      keep(plan, outcome)
      return { ...served, isReplayed: false }
    },
  }
}
