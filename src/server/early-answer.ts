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
import type { Readable } from 'node:stream'

/** Longest time and most bytes that a refused body may still take. */
export const throwAwayMs = 2000
const throwAwayBytes = 64 * 1024 * 1024

/** As long as a caller on a busy machine may pause between two chunks. */
export const chunkedSilenceMs = 500

/** Reads and forgets a body until its end, its caller's end, `silenceMs` without a byte, or a bound. */
export async function throwAway(body: Readable, silenceMs = throwAwayMs): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, throwAwayMs)
  const silence = setTimeout(resolve, silenceMs)
  let bytes = 0
  body.on('data', (chunk: Uint8Array) => {
    silence.refresh()
    bytes += chunk.length
    if (bytes > throwAwayBytes) resolve()
  })
  for (const event of ['end', 'close', 'error'] as const) body.once(event, () => resolve())
  await promise
  clearTimeout(timer)
  clearTimeout(silence)
}
