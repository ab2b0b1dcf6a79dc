import type { IncomingMessage, ServerResponse } from 'node:http'
import { constants, type Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { UniversalServerResponse } from '@connectrpc/connect/protocol'
import { boundedText, messageMaxBytes } from './connect-error.ts'
import { bodyIsUnread, endAnswer } from './early-answer.ts'

export type Request = IncomingMessage | Http2ServerRequest
export type Response = ServerResponse | Http2ServerResponse

/** An answer whose body is there as a whole. */
export interface WholeAnswer {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: Uint8Array
  /** Undefined for protocols that have none. */
  readonly trailers: Readonly<Record<string, string>> | undefined
}

/** Of a request, without its query. */
export function pathOf(request: Request): string {
  return request.url?.split('?', 1)[0] ?? '/'
}

/**
 * Writes an answer of the router and returns when it left or its caller is gone. Once `signal` is aborted it has
 * 5 seconds to leave, then its stream is cut: a caller that does not read cannot hold it. `ready` is asked before anything
 * leaves, and again for each further piece; `written` is told when the last byte was handed over.
 */
export async function writeAnswer(
  answer: UniversalServerResponse,
  request: Request,
  response: Response,
  signal: AbortSignal,
  ready: () => Promise<void> | undefined,
  written: () => void,
): Promise<void> {
  const chunks = answer.body?.[Symbol.asyncIterator]()
  const stopWatching = cutAfter(signal, response)
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
      if (!(await write(response, chunk.value))) return
      chunk = await chunks?.next()
      const next = ready()
      if (next !== undefined) await next
    }
    if (answer.trailer !== undefined) {
      // Without it, an answer that has no body ends with its headers, and its trailers are lost.
      if (!response.headersSent) sendHeaders(response)
      response.addTrailers(trailersOf(answer.trailer))
    }
    written()
    await endAnswer(request, response)
  } finally {
    stopWatching()
    chunks?.return?.().catch(() => {})
  }
}

/** As {@link writeAnswer}, for an answer that is there as a whole. */
export async function writeWhole(
  { status, headers, body, trailers }: WholeAnswer,
  request: Request,
  response: Response,
  signal: AbortSignal,
  written: () => void,
): Promise<void> {
  const stopWatching = cutAfter(signal, response)
  try {
    response.statusCode = status
    for (const [name, value] of headers) response.setHeader(name, value)
    announceClose(request, response)
    if (body.length > 0 && !(await write(response, body))) return
    if (trailers !== undefined) {
      // Without it, an answer that has no body ends with its headers, and its trailers are lost.
      if (!response.headersSent) sendHeaders(response)
      response.addTrailers(trailers)
    }
    written()
    await endAnswer(request, response)
  } finally {
    stopWatching()
  }
}

/** Answers with one body of text; a HEAD request gets its headers. */
export async function answerWhole(
  request: Request,
  response: Response,
  status: number,
  headers: Readonly<Record<string, string>>,
  body = '',
): Promise<void> {
  const stopWatching = cutAfter(AbortSignal.timeout(writeGraceMs), response)
  try {
    response.statusCode = status
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    const bytes = Buffer.from(body)
    if (bytes.length > 0) response.setHeader('content-length', bytes.length)
    announceClose(request, response)
    if (bytes.length > 0 && request.method !== 'HEAD' && !(await write(response, bytes))) return
    await endAnswer(request, response)
  } finally {
    stopWatching()
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

/** Cuts the stream some time after the signal; returns how to stop watching. */
function cutAfter(signal: AbortSignal, response: Response): () => void {
  let timer: NodeJS.Timeout | undefined
  const onAbort = (): void => {
    timer = setTimeout(() => {
      if (response instanceof Http2ServerResponse) response.stream.close(constants.NGHTTP2_CANCEL)
      else response.destroy()
    }, writeGraceMs)
  }
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  return () => {
    signal.removeEventListener('abort', onAbort)
    clearTimeout(timer)
  }
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
