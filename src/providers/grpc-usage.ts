import { type ServedBy, type Usage, UsageSource } from '../../gen/marketplace/v1/consumption_pb.ts'
import { type CountedUsage, checkCount, disjoint, estimatedUsage } from './counts.ts'
import { maxModelLength } from './openai-request.ts'
import type { ReadRequest } from './provider.ts'

/** What an upstream says of a call that it finished. */
export interface Upstream {
  readonly usage?: Usage | undefined
  readonly servedBy?: ServedBy | undefined
}

/**
 * What a finished call used: as the upstream counted it, or estimated as it says itself. One that says nothing leaves an
 * estimate by bytes. Throws BACKEND_ANSWER_INVALID for what are no counts.
 */
export function upstreamUsage({ usage }: Upstream, request: ReadRequest, answerBytes: number): CountedUsage {
  if (usage === undefined) {
    return { tokens: estimatedUsage(request.payloadBytes, answerBytes, request.model), usageSource: 'estimated' }
  }
  const tokens = disjoint({
    input: checkCount(Number(usage.inputTokens), 'input tokens'),
    cachedInput: checkCount(Number(usage.cachedInputTokens), 'cached tokens'),
    cacheWriteInput: checkCount(Number(usage.cacheWriteInputTokens), 'tokens written to the cache'),
    output: checkCount(Number(usage.outputTokens), 'output tokens'),
    reasoningOutput: checkCount(Number(usage.reasoningOutputTokens), 'reasoning tokens'),
  })
  return { tokens, usageSource: usage.source === UsageSource.ESTIMATED ? 'estimated' : 'provider' }
}

/** The model that the upstream's backend says it used. */
export function upstreamModel({ servedBy }: Upstream): string {
  return (servedBy?.model ?? '').slice(0, maxModelLength)
}
