import { ROOT_CONTEXT, SpanKind, TraceFlags, trace } from '@opentelemetry/api'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createSampler, type SamplerName } from './sampler.ts'

const traceIds = fc.stringMatching(/^[0-9a-f]{32}$/)

function decide(name: SamplerName, ratio: number, traceId: string, parent?: TraceFlags): boolean {
  const context =
    parent === undefined
      ? ROOT_CONTEXT
      : trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId: '00000000000000aa', traceFlags: parent })
  return createSampler(name, ratio).shouldSample(context, traceId, 'span', SpanKind.SERVER, {}, []).decision === 2
}

test('the share decides roots: none at 0, all at 1, the same traces and more at a higher share', () => {
  fc.assert(
    fc.property(
      traceIds,
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (id, a, b) => {
        expect(decide('traceidratio', 0, id)).toBe(false)
        expect(decide('traceidratio', 1, id)).toBe(true)
        if (decide('traceidratio', Math.min(a, b), id)) expect(decide('traceidratio', Math.max(a, b), id)).toBe(true)
      },
    ),
  )
})

test('a parent decides for the parent-based samplers only', () => {
  fc.assert(
    fc.property(traceIds, (id) => {
      expect(decide('parentbased_traceidratio', 0, id, TraceFlags.SAMPLED)).toBe(true)
      expect(decide('parentbased_traceidratio', 1, id, TraceFlags.NONE)).toBe(false)
      expect(decide('parentbased_always_off', 1, id, TraceFlags.SAMPLED)).toBe(true)
      expect(decide('always_off', 1, id, TraceFlags.SAMPLED)).toBe(false)
      expect(decide('always_on', 0, id, TraceFlags.NONE)).toBe(true)
      expect(decide('traceidratio', 0, id, TraceFlags.SAMPLED)).toBe(false)
    }),
  )
})
