import { type Attributes, type Context, type Link, type SpanKind, TraceFlags, trace } from '@opentelemetry/api'

/** Names of the samplers that OTEL_TRACES_SAMPLER offers. */
export type SamplerName =
  | 'parentbased_traceidratio'
  | 'traceidratio'
  | 'parentbased_always_on'
  | 'always_on'
  | 'parentbased_always_off'
  | 'always_off'

/** The SDK's sampler interface; a decision is 0 (drop) or 2 (record and export). */
export interface TraceSampler {
  shouldSample(
    context: Context,
    traceId: string,
    spanName: string,
    kind: SpanKind,
    attributes: Attributes,
    links: Link[],
  ): { decision: 0 | 2 }
  toString(): string
}

/**
 * A sampler by its OpenTelemetry name. It is written here because the SDK makes samplers only from the process's
 * environment, and reads a share only if the sampler is named beside it.
 *
 * The share is decided by the trace id alone, so that every gateway decides alike: the SDK's own rule, see
 * https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased.
 *
 * @param ratio share of traces that the ratio samplers record, 0 to 1.
 */
export function createSampler(name: SamplerName, ratio: number): TraceSampler {
  const followsParent = name.startsWith('parentbased_')
  const share = name.endsWith('traceidratio') ? ratio : name.endsWith('always_on') ? 1 : 0
  const upperBound = Math.floor(share * 0xffffffff)
  return {
    shouldSample(context, traceId) {
      const parent = followsParent ? trace.getSpanContext(context) : undefined
      if (parent !== undefined) return (parent.traceFlags & TraceFlags.SAMPLED) !== 0 ? sampled : dropped
      return share === 1 || (share > 0 && accumulate(traceId) < upperBound) ? sampled : dropped
    },
    toString: () => (name.endsWith('traceidratio') ? `${name}{${ratio}}` : name),
  }
}

const sampled = { decision: 2 } as const
const dropped = { decision: 0 } as const

function accumulate(traceId: string): number {
  let bits = 0
  for (let at = 0; at < 32; at += 8) bits = (bits ^ Number.parseInt(traceId.slice(at, at + 8), 16)) >>> 0
  return bits
}
