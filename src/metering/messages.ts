import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  CostComponent_Kind,
  type CostSchema,
  UsageSource as SourceNumber,
  type UsageSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import {
  type CorrectedUsage,
  CallStatus as StatusNumber,
  type UsageRecordSchema,
} from '../../gen/marketplace/v1/usage_pb.ts'
import type { CallStatus, TokenParts, UsageEvent, UsageSource } from './usage-event.ts'
import { noTokens, totalInput, totalOutput, totalTokens } from './usage-event.ts'

/** What a call costs, with the lines that add up to it when they are known. */
export interface CostFigures {
  readonly nanos: number
  /** ISO 4217; empty when unpriced. */
  readonly currency: string
  readonly priceVersion: string
  readonly components?: readonly {
    readonly kind: keyof typeof componentKinds
    readonly quantity: number
    readonly rateNanos: number
    readonly nanos: number
  }[]
}

/** The tokens of a call as callers see them: totals that include their parts. */
export function usageMessage(tokens: TokenParts, source: UsageSource): MessageInitShape<typeof UsageSchema> {
  return {
    inputTokens: BigInt(totalInput(tokens)),
    outputTokens: BigInt(totalOutput(tokens)),
    totalTokens: BigInt(totalTokens(tokens)),
    cachedInputTokens: BigInt(tokens.cachedInput),
    cacheWriteInputTokens: BigInt(tokens.cacheWriteInput),
    reasoningOutputTokens: BigInt(tokens.reasoningOutput),
    source: sources[source],
  }
}

/** Disjoint parts of totals that include them; without a message, no tokens. */
export function correctedTokens(usage: CorrectedUsage | undefined): TokenParts {
  if (usage === undefined) return noTokens
  const [cachedInput, cacheWriteInput] = [Number(usage.cachedInputTokens), Number(usage.cacheWriteInputTokens)]
  const reasoningOutput = Number(usage.reasoningOutputTokens)
  return {
    input: Number(usage.inputTokens) - cachedInput - cacheWriteInput,
    cachedInput,
    cacheWriteInput,
    output: Number(usage.outputTokens) - reasoningOutput,
    reasoningOutput,
  }
}

/** Undefined for one that is not stated. */
export function usageSourceOf(source: SourceNumber | undefined): UsageSource | undefined {
  return usageSources.find((name) => sources[name] === source)
}

/** The price of a call; `amount` is derived from the exact nano-units, last. */
export function costMessage(cost: CostFigures): MessageInitShape<typeof CostSchema> {
  return {
    amount: cost.nanos / 1e9,
    currency: cost.currency,
    amountNanos: BigInt(cost.nanos),
    priceVersion: cost.priceVersion,
    breakdown: (cost.components ?? []).map((component) => ({
      kind: componentKinds[component.kind],
      quantity: BigInt(component.quantity),
      rateNanos: BigInt(component.rateNanos),
      amountNanos: BigInt(component.nanos),
    })),
  }
}

/**
 * A row of the ledger, taken at `recordedMs` where that is known. Its cost has no breakdown: the ledger keeps the sum and
 * the version of the price.
 */
export function usageRecordMessage(event: UsageEvent, recordedMs?: number): MessageInitShape<typeof UsageRecordSchema> {
  return {
    id: event.id,
    requestId: event.requestId,
    consumerId: event.consumerId,
    organizationId: event.organizationId,
    serviceId: event.serviceId,
    endpointId: event.endpointId,
    keyId: event.keyId,
    startTime: timestampFromMs(event.startMs),
    requests: event.requests,
    corrects: event.corrects,
    durationMs: BigInt(event.durationMs),
    firstTokenMs: BigInt(event.firstTokenMs),
    status: statuses[event.status],
    errorReason: event.errorReason,
    usage: usageMessage(event.tokens, event.usageSource),
    cost: costMessage({ nanos: event.costNanos, currency: event.currency, priceVersion: event.priceVersion }),
    model: event.model,
    attempt: event.attempt,
    metadata: { ...event.metadata },
    ...(recordedMs !== undefined && { createTime: timestampFromMs(recordedMs) }),
  }
}

const sources: Readonly<Record<UsageSource, SourceNumber>> = {
  provider: SourceNumber.PROVIDER,
  partial: SourceNumber.PARTIAL,
  estimated: SourceNumber.ESTIMATED,
  none: SourceNumber.NONE,
  cache: SourceNumber.CACHE,
}

const usageSources = ['provider', 'partial', 'estimated', 'none', 'cache'] as const satisfies readonly UsageSource[]

const statuses: Readonly<Record<CallStatus, StatusNumber>> = {
  succeeded: StatusNumber.SUCCEEDED,
  failed: StatusNumber.FAILED,
  deadline_exceeded: StatusNumber.DEADLINE_EXCEEDED,
  cancelled: StatusNumber.CANCELLED,
  abandoned: StatusNumber.ABANDONED,
}

const componentKinds = {
  input: CostComponent_Kind.INPUT,
  cached_input: CostComponent_Kind.CACHED_INPUT,
  cache_write_input: CostComponent_Kind.CACHE_WRITE_INPUT,
  output: CostComponent_Kind.OUTPUT,
  reasoning_output: CostComponent_Kind.REASONING_OUTPUT,
  request: CostComponent_Kind.REQUEST,
  subscription: CostComponent_Kind.SUBSCRIPTION,
} as const
