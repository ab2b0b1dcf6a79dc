import type { IncomingMessage, ServerResponse } from 'node:http'
import { constants, type Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import { boundedText, messageMaxBytes } from './connect-error.ts'
import { bodyIsUnread, endAnswer } from './early-answer.ts'
import type { ServerCall } from './server-call.ts'

export type Request = IncomingMessage | Http2ServerRequest
export type Response = ServerResponse | Http2ServerResponse

/** An answer whose body is there as a whole. */
export interface WholeAnswer {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly whole: Uint8Array
  /** Absent for protocols that have none. */
  readonly trailers?: Readonly<Record<string, string>>
}

/** An answer that comes chunk by chunk, as the router's do. Its headers may change until the first chunk is there. */
export interface ChunkedAnswer {
  readonly status: number
  readonly header?: { forEach(visit: (value: string, name: string) => void): void }
  readonly body?: AsyncIterable<Uint8Array>
  readonly trailer?: Headers
}

export type Answer = WholeAnswer | ChunkedAnswer

/** Of a request, without its query. */
export function pathOf(request: Request): string {
  return request.url?.split('?', 1)[0] ?? '/'
}

/**
 * Writes an answer and returns when it left or its caller is gone. Once `call` is over early it has 5 seconds to leave, then
 * its stream is cut: a caller that does not read cannot hold it. What `ready` returns is waited for before each part of the
 * answer; `written` is told when the last byte was handed over.
 */
export async function writeAnswer(
  answer: Answer,
  request: Request,
  response: Response,
  call: Pick<ServerCall, 'onEnd' | 'offEnd'>,
  ready: () => Promise<void> | undefined,
  written: () => void,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const onEnd = (): void => {
    timer = setTimeout(cut, writeGraceMs, response)
  }
  call.onEnd(onEnd)
  try {
    const left =
      'whole' in answer
        ? await putWhole(answer, request, response, ready)
        : await putChunks(answer, request, response, ready)
    if (!left) return
    written()
    await endAnswer(request, response)
  } finally {
    call.offEnd(onEnd)
    clearTimeout(timer)
  }
}

/** Everything but the end; false when the caller is gone. */
async function putWhole(
  { status, headers, whole, trailers }: WholeAnswer,
  request: Request,
  response: Response,
  ready: () => Promise<void> | undefined,
): Promise<boolean> {
  const now = ready()
  if (now !== undefined) await now
  response.statusCode = status
  for (const [name, value] of headers) response.setHeader(name, value)
  announceClose(request, response)
  if (whole.length > 0 && !(await write(response, whole))) return false
  if (trailers !== undefined) putTrailers(response, trailers)
  return true
}

async function putChunks(
  answer: ChunkedAnswer,
  request: Request,
  response: Response,
  ready: () => Promise<void> | undefined,
): Promise<boolean> {
  const chunks = answer.body?.[Symbol.asyncIterator]()
  try {
    // The first chunk before the headers: until then the implementation may still set some.
    let chunk = await chunks?.next()
    const first = ready()
    if (first !== undefined) await first
    response.statusCode = answer.status
    answer.header?.forEach((value, name) => {
      response.setHeader(name, value)
    })
    announceClose(request, response)
    while (chunk !== undefined && chunk.done !== true) {
      if (!(await write(response, chunk.value))) return false
      chunk = await chunks?.next()
      const next = ready()
      if (next !== undefined) await next
    }
    if (answer.trailer !== undefined) putTrailers(response, trailersOf(answer.trailer))
    return true
  } finally {
    chunks?.return?.().catch(() => {})
  }
}

function putTrailers(response: Response, trailers: Readonly<Record<string, string>>): void {
  // Without it, an answer that has no body ends with its headers, and its trailers are lost.
  if (!response.headersSent) sendHeaders(response)
  response.addTrailers(trailers)
}

/** Answers with one body of text; a HEAD request gets its headers. */
export async function answerWhole(
  request: Request,
  response: Response,
  status: number,
  headers: Readonly<Record<string, string>>,
  body = '',
): Promise<void> {
  const timer = setTimeout(cut, 2 * writeGraceMs, response)
  try {
    response.statusCode = status
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    const bytes = Buffer.from(body)
    if (bytes.length > 0) response.setHeader('content-length', bytes.length)
    announceClose(request, response)
    if (bytes.length > 0 && request.method !== 'HEAD' && !(await write(response, bytes))) return
    await endAnswer(request, response)
  } finally {
    clearTimeout(timer)
  }
}

const writeGraceMs = 5000

/** HTTP/1.1 cannot leave a body unread and keep the connection. */
function announceClose(request: Request, response: Response): void {
  if (request.httpVersionMajor === 1 && bodyIsUnread(request)) response.setHeader('connection', 'close')
}

/** Resolves when more may be written; to false when the caller is gone. */
async function write(response: Response, bytes: Uint8Array): Promise<boolean> {
  if (isGone(response)) return false
  if (writeChunk(response, bytes)) return true
  const { promise, resolve } = Promise.withResolvers<void>()
  const again = (): void => resolve()
  response.on('drain', again)
  response.on('close', again)
  if (isGone(response)) resolve()
  await promise
  response.off('drain', again)
  response.off('close', again)
  return !isGone(response)
}

function writeChunk(response: Response, bytes: Uint8Array): boolean {
  return response instanceof Http2ServerResponse ? response.write(bytes) : response.write(bytes)
}

function sendHeaders(response: Response): void {
  if (response instanceof Http2ServerResponse) response.writeHead(response.statusCode)
  else response.flushHeaders()
}

function isGone(response: Response): boolean {
  return response instanceof Http2ServerResponse ? response.stream.destroyed : response.destroyed
}

function cut(response: Response): void {
  if (response instanceof Http2ServerResponse) response.stream.close(constants.NGHTTP2_CANCEL)
  else response.destroy()
}

/** Errors of the decoder quote what they could not decode, of any length: clients drop trailers that are too large. */
function trailersOf(trailer: Headers): Record<string, string> {
  const trailers = Object.fromEntries(trailer)
  const message = trailers['grpc-message']
  if (message !== undefined && message.length > messageMaxBytes) {
    trailers['grpc-message'] = encodeURIComponent(boundedText(decodeURIComponent(message), messageMaxBytes))
  }
  return trailers
}
