import { SpanKind } from '@opentelemetry/api'
import { NodeSDK, type NodeSDKConfiguration } from '@opentelemetry/sdk-node'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { usageEvent } from '../../test/support/usage-events.ts'
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
  const event = usageEvent({ traceparent: `00-${traceId}-${spanId}-01` })
  traceInserts([event, event, usageEvent()], [event.id], startMs, startMs + 250)
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

test('an unsampled, damaged or unwritten one leaves no span', () => {
  const unsampled = usageEvent({ traceparent: `00-${traceId}-${spanId}-00` })
  const damaged = usageEvent({ traceparent: 'nonsense' })
  const unwritten = usageEvent({ traceparent: `00-${traceId}-${spanId}-01` })
  traceInserts([unsampled, damaged, unwritten], [unsampled.id, damaged.id], startMs, startMs + 250)
  expect(ended).toEqual([])
})
