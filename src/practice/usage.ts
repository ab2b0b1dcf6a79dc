import type { PracticeRequest } from './requests.ts'

/** Tokens that the practice backend reports for a call. Cached ones are part of the prompt, reasoning of the completion. */
export interface PracticeUsage {
  readonly promptTokens: number
  readonly completionTokens: number
  readonly cachedTokens: number
  readonly reasoningTokens: number
}

/** Counts to report in place of the computed ones. */
export type ForcedUsage = Partial<PracticeUsage>

/**
 * Usage of a request, from the request alone. The completion has 16 to 64 tokens by the prompt's hash, at most
 * `max_completion_tokens` or `max_tokens`, and none for embeddings. Nothing is cached and nothing reasoned unless forced.
 * Forced parts are clipped to what they are part of.
 */
export function computeUsage(request: PracticeRequest, forced: ForcedUsage): PracticeUsage {
  const promptTokens = forced.promptTokens ?? request.promptTokens
  const natural = request.kind === 'embeddings' ? 0 : Math.min(request.maxTokens, 16 + (request.hash % 49))
  const completionTokens = forced.completionTokens ?? natural
  return {
    promptTokens,
    completionTokens,
    cachedTokens: Math.min(forced.cachedTokens ?? 0, promptTokens),
    reasoningTokens: Math.min(forced.reasoningTokens ?? 0, completionTokens),
  }
}

/** The `usage` object of an OpenAI-compatible answer, as JSON text. */
export function usageJson(usage: PracticeUsage): string {
  const total = usage.promptTokens + usage.completionTokens
  return (
    `{"prompt_tokens":${usage.promptTokens},"completion_tokens":${usage.completionTokens},"total_tokens":${total},` +
    `"prompt_tokens_details":{"cached_tokens":${usage.cachedTokens}},` +
    `"completion_tokens_details":{"reasoning_tokens":${usage.reasoningTokens}}}`
  )
}
