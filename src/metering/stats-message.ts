import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import type { UsageStatsSchema } from '../../gen/marketplace/v1/usage_pb.ts'
import type { UsageStatistics } from './usage-stats.ts'

/** Statistics as callers see them: totals include their parts; shares and readable amounts are derived last. */
export function usageStatsMessage(
  subject: { readonly serviceId: string; readonly consumerId: string },
  { period, requests, tokens, costNanos, unpriced, durationMs, latencyMs }: UsageStatistics,
): MessageInitShape<typeof UsageStatsSchema> {
  const failed = requests.failed + requests.deadline_exceeded + requests.abandoned
  const total = requests.succeeded + failed + requests.cancelled
  const input = tokens.input + tokens.cachedInput + tokens.cacheWriteInput
  const output = tokens.output + tokens.reasoningOutput
  const costs = [...costNanos].map(([currency, nanos]) => ({
    currency,
    amount: Number(nanos) / 1e9,
    amountNanos: nanos,
  }))
  return {
    serviceId: subject.serviceId,
    consumerId: subject.consumerId,
    periodStart: timestampFromMs(period.fromMs),
    periodEnd: timestampFromMs(period.toMs),
    totalRequests: total,
    succeededRequests: requests.succeeded,
    failedRequests: failed,
    cancelledRequests: requests.cancelled,
    totalTokens: input + output,
    inputTokens: input,
    outputTokens: output,
    cachedInputTokens: tokens.cachedInput,
    cacheWriteInputTokens: tokens.cacheWriteInput,
    reasoningOutputTokens: tokens.reasoningOutput,
    ...(costs.length > 1 ? {} : { totalCost: costs[0]?.amount ?? 0 }),
    costs,
    unpricedRequests: unpriced,
    avgLatencyMs: share(durationMs, total),
    latencyMsP50: latencyMs.p50,
    latencyMsP95: latencyMs.p95,
    latencyMsP99: latencyMs.p99,
    errorRate: share(failed, total),
  }
}

function share(part: bigint, whole: bigint): number {
  return whole === 0n ? 0 : Number(part) / Number(whole)
}
