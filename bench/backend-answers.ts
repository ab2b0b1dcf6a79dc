/** What the benchmark's backend says, made once: answers of a given size, and streams whose tokens carry their number. */

const head = '"created":1767225600,"model":"bench-2026-01-01","system_fingerprint":"fp_fc9f1d7035"'
const usage = '"usage":{"prompt_tokens":70,"completion_tokens":50,"total_tokens":120}'

/** A chat completion of exactly `bytes` bytes, at least what its fields need. */
export function unaryAnswer(bytes: number): Buffer {
  const compose = (content: string): string =>
    `{"id":"chatcmpl-bench","object":"chat.completion",${head},"choices":[{"index":0,"message":{"role":"assistant",` +
    `"content":"${content}"},"logprobs":null,"finish_reason":"stop"}],${usage}}`
  const text = 'the gate counts every token once '.repeat(Math.ceil(bytes / 33))
  return Buffer.from(compose(text.slice(0, Math.max(0, bytes - compose('').length))))
}

/** The events of a streamed chat completion. Four of them carry no token, so 50 tokens are 54 events. */
export interface StreamEvents {
  readonly opening: readonly string[]
  readonly words: readonly string[]
  readonly closing: readonly string[]
}

/** Token `n` reads ` t0n`, three digits: a reader sees whether one is missing, doubled or out of place. */
export function streamEvents(tokens: number): StreamEvents {
  const start = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk",${head},"choices":[`
  const event = (delta: string, finish: string): string =>
    `${start}{"index":0,"delta":{${delta}},"logprobs":null,"finish_reason":${finish}}]}\n\n`
  return {
    opening: [event('"role":"assistant","content":""', 'null')],
    words: Array.from({ length: tokens }, (_, index) =>
      event(`"content":" t${String(index).padStart(3, '0')}"`, 'null'),
    ),
    closing: [event('', '"stop"'), `${start}],${usage}}\n\n`, 'data: [DONE]\n\n'],
  }
}
