import type { IncomingMessage, ServerResponse } from 'node:http'
import { constants, type Http2ServerRequest, Http2ServerResponse } from 'node:http2'

/**
 * Ending an answer whose request body was not read to its end: a wrong key, a message that is too large, a deadline.
 *
 * - HTTP/2: the stream would stay half-open for as long as the caller likes, and hang the shutdown. The rest of the body
 *   is thrown away for a moment, because some callers see a reset before they see the answer; then the stream is reset
 *   with NO_ERROR, which asks the caller to stop sending (RFC 9113, section 8.1).
 * - HTTP/1.1: the answer said `connection: close`. Closing with unread bytes makes the kernel reset the connection, and
 *   the caller loses the answer while it is still sending. So the body is thrown away first, within bounds. A chunked
 *   body may have no end, and its caller may wait for ours: there a short silence is enough. (Without the wait, two of
 *   six uploads of 64 MiB by curl saw a broken pipe instead of the answer.)
 */
export async function endAnswer(
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
): Promise<void> {
  if (response instanceof Http2ServerResponse) {
    const { stream } = response
    response.end()
    if (stream.destroyed) return
    const closed = once(stream, ['close'])
    await throwAway(request)
    // A body that ended closes the stream by itself; a reset would overtake trailers that are still to be sent.
    if (!request.complete) stream.close(constants.NGHTTP2_NO_ERROR)
    await closed
    return
  }
  if (bodyIsUnread(request)) {
    await throwAway(request, request.headers['content-length'] === undefined ? chunkedSilenceMs : throwAwayMs)
  }
  if (response.destroyed) return
  const left = once(response, ['finish', 'close'])
  response.end()
  request.resume()
  await left
}

/** True while bytes of the body are still to come or to be read, as far as its headers tell. */
export function bodyIsUnread(request: IncomingMessage | Http2ServerRequest): boolean {
  if (request.complete) return false
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers
  return encoding !== undefined || (length !== undefined && length !== '0')
}

/** Longest time and most bytes that a refused body may still take. */
const throwAwayMs = 2000
const throwAwayBytes = 64 * 1024 * 1024

const chunkedSilenceMs = 100

/** Reads and forgets the body until its end, its caller's end, `silenceMs` without a byte, or a bound. */
async function throwAway(request: IncomingMessage | Http2ServerRequest, silenceMs = throwAwayMs): Promise<void> {
  if (request.complete) {
    request.resume()
    return
  }
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, throwAwayMs)
  const silence = setTimeout(resolve, silenceMs)
  let bytes = 0
  request.on('data', (chunk: Uint8Array) => {
    silence.refresh()
    bytes += chunk.length
    if (bytes > throwAwayBytes) resolve()
  })
  for (const event of ['end', 'close', 'error'] as const) request.once(event, () => resolve())
  await promise
  clearTimeout(timer)
  clearTimeout(silence)
}

async function once(emitter: NodeJS.EventEmitter, events: readonly string[]): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  for (const event of events) emitter.once(event, () => resolve())
  await promise
}
