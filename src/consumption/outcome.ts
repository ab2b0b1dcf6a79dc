/** What came of a call at its backends, as its record says it. */
import type { Reason, TollgateError } from '../errors.ts'
import { type CallStatus, noTokens, type TokenParts, type UsageSource } from '../metering/usage-event.ts'
import { type Charge, chargeFor, noCharge } from '../pricing/price.ts'
import type { Answer, StreamEnd, StreamReport } from '../providers/provider.ts'
import type { PriceRecord } from '../registry/records.ts'
import type { Attempt } from '../routing/dispatcher.ts'
import type { CachedAnswer } from './response-cache.ts'

/** How a call ended. */
export interface Ending {
  readonly status: CallStatus
  /** Empty on success. */
  readonly errorReason: string
  /** Empty when no backend was called. */
  readonly endpointId: string
  /** Number of the last attempt; 0 when no backend was called. */
  readonly attempt: number
  readonly tokens: TokenParts
  readonly usageSource: UsageSource
  readonly charge: Charge
  readonly model: string
  /** As in the usage event. */
  readonly firstTokenMs: number
}

export interface Outcome extends Ending {
  /** In order; none when no backend was called. */
  readonly attempts: readonly Attempt[]
  readonly finishReason: string
  /** For the caller, and for repetitions with the same idempotency key; undefined when it is too large to keep. */
  readonly body: Uint8Array | undefined
  /** What the caller is told, unless it succeeded. */
  readonly error?: TollgateError
}

export function answered(price: PriceRecord | undefined, attempts: readonly Attempt[], answer: Answer): Outcome {
  const { tokens, usageSource, model, finishReason, body } = answer
  return {
    attempts,
    attempt: attempts.length,
    endpointId: attempts.at(-1)?.endpointId ?? '',
    tokens,
    usageSource,
    model,
    finishReason,
    charge: chargeFor(price, tokens),
    firstTokenMs: 0,
    status: 'succeeded',
    errorReason: '',
    body,
  }
}

/** No backend was asked. */
export function fromCache(price: PriceRecord | undefined, { body, model, finishReason }: CachedAnswer): Outcome {
  const nothing = { tokens: noTokens, usageSource: 'cache', charge: noCharge(price), firstTokenMs: 0 } as const
  return { ...lastOf([]), ...nothing, model, finishReason, status: 'succeeded', errorReason: '', body }
}

/** Nothing was delivered. */
export function failed(price: PriceRecord | undefined, attempts: readonly Attempt[], error: TollgateError): Outcome {
  const nothing = { tokens: noTokens, usageSource: 'none', model: '', finishReason: '', firstTokenMs: 0 } as const
  const ending = { status: statusOf(error), errorReason: error.reason, error }
  return { ...lastOf(attempts), ...nothing, ...ending, charge: noCharge(price), body: new Uint8Array() }
}

/** A stream of a call that was admitted at `startMs`, whose first output was delivered; when it broke off after that, what was delivered is charged. */
export function streamed(
  price: PriceRecord | undefined,
  attempts: readonly Attempt[],
  { tokens, usageSource, model, finishReason }: StreamReport,
  end: StreamEnd,
  body: Uint8Array | undefined,
  startMs: number,
): Outcome {
  const status = end.verdict === 'complete' ? 'succeeded' : statusOf(end.error)
  // What a backend broke is no answered request; one that its caller ended is.
  const isFree = usageSource === 'none' || (status === 'failed' && price?.model.kind === 'per_request')
  const charge = isFree ? noCharge(price) : chargeFor(price, tokens)
  const used = { tokens, usageSource, model, finishReason, charge, body, firstTokenMs: firstTokenOf(attempts, startMs) }
  if (end.verdict === 'complete') return { ...lastOf(attempts), ...used, status, errorReason: '' }
  const { error } = end
  return { ...lastOf(attempts), ...used, status, errorReason: error.reason, error }
}

function firstTokenOf(attempts: readonly Attempt[], startMs: number): number {
  const last = attempts.at(-1)
  return last?.firstTokenMs === undefined ? 0 : Math.max(1, last.startMs + last.firstTokenMs - startMs)
}

function lastOf(attempts: readonly Attempt[]): Pick<Outcome, 'attempts' | 'attempt' | 'endpointId'> {
  return { attempts, attempt: attempts.length, endpointId: attempts.at(-1)?.endpointId ?? '' }
}

function statusOf({ reason }: TollgateError): CallStatus {
  if (reason === 'DEADLINE_EXCEEDED') return 'deadline_exceeded'
  if (endings.has(reason)) return 'cancelled'
  return 'failed'
}

/** Reasons by which a call ends that no backend failed. */
const endings: ReadonlySet<Reason> = new Set([
  'CANCELLED',
  'SHUTTING_DOWN',
  'CREDENTIAL_REVOKED',
  'CREDENTIAL_EXPIRED',
  'CONSUMER_INACTIVE',
])
