import { AnswerHeaders } from './answer-headers.ts'
import { boundedText, messageMaxBytes } from './connect-error.ts'
import { type Exchange, noBytes, type Trailers } from './exchange.ts'
import type { ServerCall } from './server-call.ts'
import { Outlet, type StreamedAnswer } from './streamed-answer.ts'

/** An answer whose body is there as a whole. */
export interface WholeAnswer {
  readonly status: number
  readonly headers: AnswerHeaders
  readonly whole: Uint8Array
  /** Absent for protocols that have none. */
  readonly trailers?: Trailers
}

/** An answer that comes chunk by chunk, as the router's do. Its headers may change until the first chunk is there. */
export interface ChunkedAnswer {
  readonly status: number
  readonly header?: { forEach(visit: (value: string, name: string) => void): void }
  readonly body?: AsyncIterable<Uint8Array>
  readonly trailer?: Headers
}

/** What is asked before a part of an answer leaves; the answer waits for what it returns. */
export type Ready = (call: ServerCall) => Promise<void> | undefined

export type Answer = WholeAnswer | ChunkedAnswer | StreamedAnswer

/**
 * Writes an answer and returns when it left or its caller is gone. Once `call` is over early it has 5 seconds to leave, then
 * its stream is cut: a caller that does not read cannot hold it. What `ready` returns is waited for before each part of the
 * answer. Notes in the call when the last byte was handed over.
 */
export async function writeAnswer(answer: Answer, exchange: Exchange, call: ServerCall, ready: Ready): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const onEnd = (): void => {
    timer = setTimeout(() => exchange.cut(), writeGraceMs)
  }
  call.onEnd(onEnd)
  try {
    if ('whole' in answer) {
      const now = ready(call)
      if (now !== undefined) await now
      putWhole(answer, exchange)
    } else if ('pump' in answer) {
      await putStream(answer, exchange, call, ready)
    } else {
      await putChunks(answer, exchange, call, ready)
    }
    if (exchange.isGone) return
    call.answeredMs = performance.now()
    const leaving = exchange.left()
    if (leaving !== undefined) await leaving
  } finally {
    call.offEnd(onEnd)
    clearTimeout(timer)
  }
}

function putWhole({ status, headers, whole, trailers }: WholeAnswer, exchange: Exchange): void {
  if (exchange.isGone) return
  exchange.head(status, headers, trailers !== undefined)
  exchange.end(whole, trailers)
}

async function putStream(answer: StreamedAnswer, exchange: Exchange, call: ServerCall, ready: Ready): Promise<void> {
  const { status, headers, hasTrailers } = answer
  if (exchange.isGone) return
  exchange.head(status, headers, hasTrailers)
  const outlet = new Outlet(exchange)
  const { bytes, trailers } = await answer.pump(outlet)
  const now = ready(call)
  if (now !== undefined) await now
  if (exchange.isGone) return
  outlet.put(bytes)
  exchange.end(outlet.rest(), trailers)
}

async function putChunks(answer: ChunkedAnswer, exchange: Exchange, call: ServerCall, ready: Ready): Promise<void> {
  const chunks = answer.body?.[Symbol.asyncIterator]()
  try {
    // The first chunk before the headers: until then the implementation may still set some.
    let chunk = await chunks?.next()
    const first = ready(call)
    if (first !== undefined) await first
    if (exchange.isGone) return
    const headers = new AnswerHeaders()
    answer.header?.forEach((value, name) => {
      headers.set(name, value)
    })
    exchange.head(answer.status, headers, answer.trailer !== undefined)
    while (chunk !== undefined && chunk.done !== true) {
      exchange.write(chunk.value)
      if (exchange.isFull) await exchange.drained()
      if (exchange.isGone) return
      chunk = await chunks?.next()
      const next = ready(call)
      if (next !== undefined) await next
    }
    if (!exchange.isGone) exchange.end(noBytes, answer.trailer && trailersOf(answer.trailer))
  } finally {
    chunks?.return?.().catch(() => {})
  }
}

/** Answers what is no call with one body of text; a HEAD request gets its headers. */
export async function answerWhole(
  exchange: Exchange,
  status: number,
  headers: AnswerHeaders,
  body = '',
): Promise<void> {
  const timer = setTimeout(() => exchange.cut(), 2 * writeGraceMs)
  try {
    const bytes = Buffer.from(body)
    if (bytes.length > 0) headers.set('content-length', String(bytes.length))
    if (exchange.isGone) return
    exchange.head(status, headers, false)
    exchange.end(exchange.method === 'HEAD' ? noBytes : bytes)
    await exchange.left()
  } finally {
    clearTimeout(timer)
  }
}

const writeGraceMs = 5000

/** Errors of the decoder quote what they could not decode, of any length: clients drop trailers that are too large. */
function trailersOf(trailer: Headers): Trailers {
  const trailers = Object.fromEntries(trailer)
  const message = trailers['grpc-message']
  if (message !== undefined && message.length > messageMaxBytes) {
    trailers['grpc-message'] = encodeURIComponent(boundedText(decodeURIComponent(message), messageMaxBytes))
  }
  return trailers
}
