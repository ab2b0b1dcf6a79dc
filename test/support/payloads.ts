/** An OpenAI chat request as bytes. `model` may carry a fault of the practice backend, such as "practice:status=503". */
export function chat(content: string, model = 'practice', maxTokens = 32): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(
    JSON.stringify({ model, max_tokens: maxTokens, messages: [{ role: 'user', content }] }),
  )
}
