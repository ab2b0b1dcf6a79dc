/** A service of the benchmark: what its backend answers, and a request that asks for it. */
export interface BenchService {
  readonly name: string
  /** Path and query at the backend, which decide the answer. */
  readonly target: string
  /** Bytes of the request's body. */
  readonly requestBytes: number
  /** Tokens of a streamed answer; absent for a whole one. */
  readonly tokens?: number
}

/** Where OpenAI's chat is, at the backend, the proxy and the gate. */
export const chatPath = '/v1/chat/completions'
const tokens = 50

/** Every service, by what it is for. Requests and whole answers have the same size; one has a limit that refuses all. */
export const services = {
  plain: { name: 'bench', target: chatPath, requestBytes: 1_024 },
  medium: { name: 'bench-16k', target: `${chatPath}?bytes=16384`, requestBytes: 16_384 },
  large: { name: 'bench-256k', target: `${chatPath}?bytes=262144`, requestBytes: 262_144 },
  stream: { name: 'bench-stream', target: `${chatPath}?tokens=${tokens}`, requestBytes: 512, tokens },
  paced: { name: 'bench-paced', target: `${chatPath}?tokens=${tokens}&paceMs=10`, requestBytes: 512, tokens },
  slow: { name: 'bench-slow', target: `${chatPath}?tokens=${tokens}&paceMs=20`, requestBytes: 512, tokens },
  closed: { name: 'bench-closed', target: chatPath, requestBytes: 512 },
} as const satisfies Record<string, BenchService>

/** The body of a chat request to a service, of exactly the service's size. */
export function requestBody({ name, requestBytes, tokens: streamed }: BenchService): Buffer {
  const compose = (content: string): string =>
    JSON.stringify({
      model: name,
      messages: [
        { role: 'system', content: 'You answer in one short sentence.' },
        { role: 'user', content },
      ],
      max_tokens: 64,
      ...(streamed === undefined ? {} : { stream: true }),
    })
  const text = 'How many calls pass a gate that counts every one of them? '
  const room = requestBytes - compose('').length
  return Buffer.from(compose(text.repeat(Math.ceil(room / text.length)).slice(0, room)))
}
