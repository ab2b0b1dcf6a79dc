import { expect, test } from 'vitest'
import { CostComponent_Kind, UsageSource } from '../../gen/marketplace/v1/consumption_pb.ts'
import { CallStatus } from '../../gen/marketplace/v1/usage_pb.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { costMessage, usageMessage, usageRecordMessage } from './messages.ts'

test('totals include their parts', () => {
  const tokens = { input: 10, cachedInput: 4, cacheWriteInput: 3, output: 20, reasoningOutput: 5 }
  expect(usageMessage(tokens, 'partial')).toEqual({
    inputTokens: 17n,
    outputTokens: 25n,
    totalTokens: 42n,
    cachedInputTokens: 4n,
    cacheWriteInputTokens: 3n,
    reasoningOutputTokens: 5n,
    source: UsageSource.PARTIAL,
  })
})

test('a cost carries the exact figure, the readable one and its lines', () => {
  const components = [{ kind: 'cached_input', quantity: 4, rateNanos: 250, nanos: 1_500_000_001 }] as const
  expect(costMessage({ nanos: 1_500_000_001, currency: 'EUR', priceVersion: '7', components })).toEqual({
    amount: 1.500000001,
    currency: 'EUR',
    amountNanos: 1_500_000_001n,
    priceVersion: '7',
    breakdown: [{ kind: CostComponent_Kind.CACHED_INPUT, quantity: 4n, rateNanos: 250n, amountNanos: 1_500_000_001n }],
  })
})

test('a record keeps every field of its event', () => {
  const event = usageEvent({
    status: 'abandoned',
    usageSource: 'none',
    startMs: 1_700_000_000_123,
    metadata: { a: 'b' },
  })
  expect(usageRecordMessage(event)).toMatchObject({
    id: event.id,
    requestId: event.requestId,
    startTime: { seconds: 1_700_000_000n, nanos: 123_000_000 },
    durationMs: 12n,
    status: CallStatus.ABANDONED,
    usage: { totalTokens: 42n, source: UsageSource.NONE },
    cost: { amountNanos: 1_234_567n, breakdown: [] },
    metadata: { a: 'b' },
  })
})
