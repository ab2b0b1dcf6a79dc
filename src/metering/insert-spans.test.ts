import { SpanKind } from '@opentelemetry/api'
import { NodeSDK, type NodeSDKConfiguration } from '@opentelemetry/sdk-node'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { traceInserts } from './insert-spans.ts'

type Processor = NonNullable<NodeSDKConfiguration['spanProcessors']>[number]
type EndedSpan = Parameters<Processor['onEnd']>[0]

const ended: EndedSpan[] = []
const processor: Processor = {
  onStart: () => {},
  onEnd: (span) => void ended.push(span),
  forceFlush: async () => {},
  shutdown: async () => {},
}
const sdk = new NodeSDK({ spanProcessors: [processor] })
// A time of today: OpenTelemetry takes small numbers for offsets to the start of the process.
const startMs = 1_790_000_000_000
const traceId = 'a'.repeat(32)
const spanId = 'b'.repeat(16)

beforeAll(() => sdk.start())
beforeEach(() => {
  ended.length = 0
})
afterAll(() => sdk.shutdown())

test('the write of an event is a span in the trace of its call', () => {
  traceInserts([`00-${traceId}-${spanId}-01`], startMs, startMs + 250, 3)
  const [span, ...others] = ended
  expect(others).toEqual([])
  expect(span?.name).toBe('usage_records insert')
  expect(span?.kind).toBe(SpanKind.CLIENT)
  expect(span?.spanContext().traceId).toBe(traceId)
  expect(span?.parentSpanContext?.spanId).toBe(spanId)
  expect([span?.startTime, span?.endTime]).toEqual([
    [startMs / 1000, 0],
    [startMs / 1000, 250_000_000],
  ])
  expect(span?.attributes).toMatchObject({ 'db.system.name': 'postgresql', 'db.operation.batch.size': 3 })
})

test('an unsampled or damaged one leaves no span', () => {
  traceInserts([`00-${traceId}-${spanId}-00`, 'nonsense'], startMs, startMs + 250, 3)
  expect(ended).toEqual([])
})
