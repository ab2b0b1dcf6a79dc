/**
 * Callers that want their answers: each call is tried again, at another gateway and with the same key, until it has an
 * answer or an error that no wait can help. What callers were told is the run's record of what the gate owes.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { ConnectError } from '@connectrpc/connect'
import { ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { isReason, reasons } from '../../src/errors.ts'
import type { Tenant } from '../support/tenant.ts'
import { type CallPlan, mayEndWith } from './call-plan.ts'
import type { Answer, GatewayClient } from './gateway-client.ts'

export interface LoadOptions {
  readonly plan: (index: number) => CallPlan
  readonly tenants: readonly Tenant[]
  readonly gateways: readonly GatewayClient[]
  /** Calls at once. */
  readonly callers: number
  /** Deadline of each try. */
  readonly timeoutMs: number
  /** Resolves with whether this call is to be made; the first `false` ends the load. */
  readonly admits: (index: number) => Promise<boolean>
  /** Told of each call that has ended. */
  readonly onEnd: (call: FinishedCall) => void
  /** Ends the load early: calls in flight are given up. */
  readonly signal: AbortSignal
}

export interface FinishedCall {
  readonly plan: CallPlan
  readonly tries: number
  /** One, or two when the call was repeated; none when it failed. */
  readonly answers: readonly Answer[]
  /** Why it was given up; undefined with an answer. */
  readonly failure: Failure | undefined
}

export interface Failure {
  /** Of the error's details; empty when the connection broke. */
  readonly reason: string
  readonly message: string
  /** Empty when no gate answered. */
  readonly requestId: string
}

export interface LoadResult {
  readonly calls: readonly FinishedCall[]
  /** How often a try failed for a reason that its plan does not name. */
  readonly failedTries: ReadonlyMap<string, number>
}

/** Beyond it a call is given up; with the pauses between them it is more than a minute and a half. */
const mostTries = 100
const firstPauseMs = 25
const longestPauseMs = 1_000

/** Runs the load to its end. Rejects only for what is wrong with the run itself. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { gateways, tenants, signal } = options
  const calls: FinishedCall[] = []
  const failedTries = new Map<string, number>()
  let issued = 0

  async function caller(): Promise<void> {
    while (!signal.aborted) {
      const index = issued
      issued += 1
      if (!(await options.admits(index)) || signal.aborted) return
      const call = await finish(options.plan(index))
      calls.push(call)
      options.onEnd(call)
    }
  }

  async function finish(plan: CallPlan): Promise<FinishedCall> {
    const first = await answered(plan, plan.gateway, plan.firstTimeoutMs)
    if (first.answer === undefined || !plan.isRepeated || signal.aborted) return finished(plan, [first])
    return finished(plan, [first, await answered(plan, plan.gateway + 1, undefined)])
  }

  async function answered(plan: CallPlan, from: number, firstTimeoutMs: number | undefined): Promise<Outcome> {
    for (let tries = 1; ; tries += 1) {
      const gateway = of(gateways, from + tries - 1)
      const timeoutMs = tries === 1 ? (firstTimeoutMs ?? options.timeoutMs) : options.timeoutMs
      try {
        const answer = await gateway.call(plan, of(tenants, plan.tenant), timeoutMs, signal)
        return { tries, answer, failure: undefined }
      } catch (cause) {
        const failure = failureOf(cause)
        const { reason } = failure
        const isPlanned = mayEndWith(plan, reason) || plan.mayFailWith.includes(reason)
        if (!signal.aborted && !isPlanned) {
          failedTries.set(reason, (failedTries.get(reason) ?? 0) + 1)
        }
        if (isFinal(reason) || tries === mostTries || signal.aborted) return { tries, answer: undefined, failure }
      }
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(tries, 10)) * (0.5 + plan.next() / 2)
      await delay(pauseMs, undefined, { signal }).catch(() => {})
    }
  }

  await Promise.all(Array.from({ length: options.callers }, caller))
  return { calls, failedTries }
}

interface Outcome {
  readonly tries: number
  readonly answer: Answer | undefined
  readonly failure: Failure | undefined
}

function finished(plan: CallPlan, outcomes: readonly Outcome[]): FinishedCall {
  return {
    plan,
    tries: outcomes.reduce((sum, { tries }) => sum + tries, 0),
    answers: outcomes.flatMap(({ answer }) => answer ?? []),
    failure: outcomes.find(({ failure }) => failure !== undefined)?.failure,
  }
}

function failureOf(cause: unknown): Failure {
  const error = ConnectError.from(cause)
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? ''
  return { reason, message: error.message, requestId: error.metadata.get('x-request-id') ?? '' }
}

/** A broken connection and a missed deadline say nothing about the call; the gate's own errors say whether a wait helps. */
function isFinal(reason: string): boolean {
  return isReason(reason) && !reasons[reason].retryable && reason !== 'CANCELLED'
}

/** Goes round. */
function of<T>(things: readonly T[], index: number): T {
  const thing = things[index % things.length]
  if (thing === undefined) throw new Error('nothing to take from')
  return thing
}
