/**
 * A usage event is what one attempt of one call used and cost. It is written to the usage log when the reservation is
 * settled, and becomes one row of `usage_records`. Its id makes the way to Postgres idempotent. The entries of a
 * correction (`correction.ts`) are usage events too.
 */
export interface UsageEvent {
  /** UUIDv7 of the attempt, see `attempt-id.ts`: the ledger holds it once, however often it is delivered. */
  readonly id: string
  /** UUIDv7 of the call. */
  readonly requestId: string
  readonly organizationId: string
  readonly consumerId: string
  readonly serviceId: string
  /** Empty when no endpoint was reached. */
  readonly endpointId: string
  /** Empty for calls without an API key. */
  readonly keyId: string
  /** Unix milliseconds of admission; decides partition, month and hour of the record. */
  readonly startMs: number
  /**
   * 1; -1 in a reversal, whose token parts and cost are negative or 0; 0 for an attempt that another one followed, whose
   * figures are 0: the record of the last attempt has what the call used.
   */
  readonly requests: number
  /** Id of the record that this entry of a correction reverses or rebooks; empty in all others. */
  readonly corrects: string
  readonly durationMs: number
  /** Milliseconds from admission to the first output of a stream, at least 1; 0 when no output of a stream came. */
  readonly firstTokenMs: number
  readonly status: CallStatus
  /** Reason from the error vocabulary; empty on success. */
  readonly errorReason: string
  readonly tokens: TokenParts
  readonly usageSource: UsageSource
  /** Exact price in nano-units; 0 with `currency` empty means unpriced. */
  readonly costNanos: number
  /** ISO 4217; empty when unpriced. */
  readonly currency: string
  /** Empty when unpriced, and in a rebooking whose cost no price led to. */
  readonly priceVersion: string
  /** Model that the backend says it used; empty when unknown. */
  readonly model: string
  /** From 1; 0 when no backend was called. */
  readonly attempt: number
  readonly metadata: Readonly<Record<string, string>>
  /** W3C traceparent of the call when it is sampled, else empty. */
  readonly traceparent: string
}

export type CallStatus = 'succeeded' | 'failed' | 'deadline_exceeded' | 'cancelled' | 'abandoned'

/**
 * provider: reported by the backend; partial: counted from what was delivered; none: the backend never answered; cache: it
 * was not asked, because the response cache had the answer.
 */
export type UsageSource = 'provider' | 'partial' | 'estimated' | 'none' | 'cache'

/** Disjoint parts of a call's tokens; every total is derived from them. */
export type TokenParts = {
  readonly input: number
  readonly cachedInput: number
  readonly cacheWriteInput: number
  readonly output: number
  readonly reasoningOutput: number
}

export const noTokens: TokenParts = { input: 0, cachedInput: 0, cacheWriteInput: 0, output: 0, reasoningOutput: 0 }

export function totalInput(tokens: TokenParts): number {
  return tokens.input + tokens.cachedInput + tokens.cacheWriteInput
}

export function totalOutput(tokens: TokenParts): number {
  return tokens.output + tokens.reasoningOutput
}

export function totalTokens(tokens: TokenParts): number {
  return totalInput(tokens) + totalOutput(tokens)
}
