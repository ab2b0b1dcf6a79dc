import type { Readable } from 'node:stream'
import { TollgateError } from '../errors.ts'
import { failCall, messageTooLarge } from './connect-error.ts'
import { callerGone, type ServerCall } from './server-call.ts'

export interface BodyLimits {
  /** Largest message as sent, in bytes. */
  readonly maxMessageBytes: number
  /** Longest time until the whole body is there, in milliseconds; undefined for streams of the caller. */
  readonly bodyTimeoutMs: number | undefined
  /** True when messages come in length-prefixed envelopes, false when the body is one message. */
  readonly enveloped: boolean
}

/**
 * The body of a request, chunk by chunk. Fails with what the caller shall see: MESSAGE_TOO_LARGE as soon as a length is
 * announced that is over the limit, and with why the call is over while it waits for bytes.
 *
 * Node's own iterator would destroy the request when it is left early, and with it the answer.
 */
export async function* readBody(
  body: Readable,
  call: ServerCall,
  limits: BodyLimits,
): AsyncGenerator<Uint8Array, void, undefined> {
  const timer =
    limits.bodyTimeoutMs === undefined
      ? undefined
      : setTimeout(tooSlow, limits.bodyTimeoutMs, call, limits.bodyTimeoutMs)
  try {
    const check = limits.enveloped ? envelopeCheck(limits) : lengthCheck(limits)
    for (;;) {
      call.throwIfEnded()
      const chunk: unknown = body.read()
      if (chunk instanceof Uint8Array) {
        check(chunk)
        yield chunk
      } else if (body.readableEnded) {
        return
      } else if (body.destroyed) {
        throw callerGone()
      } else {
        await moreOf(body, call)
      }
    }
  } catch (error) {
    throw failCall(call, error)
  } finally {
    clearTimeout(timer)
  }
}

/** Whether a body of this content type is a sequence of length-prefixed envelopes; else it is one message. */
export function isEnveloped(contentType: string | undefined): boolean {
  return /^application\/(grpc|connect\+)/.test(contentType ?? '')
}

/** Ends a call whose body did not arrive within `bodyTimeoutMs`. */
export function tooSlow(call: ServerCall, bodyTimeoutMs: number): void {
  call.abort(
    new TollgateError('DEADLINE_EXCEEDED', `the request body did not arrive within ${bodyTimeoutMs} ms`, {
      metadata: { timeoutMs: String(bodyTimeoutMs) },
    }),
  )
}

function lengthCheck({ maxMessageBytes }: BodyLimits): (chunk: Uint8Array) => void {
  let length = 0
  return (chunk) => {
    length += chunk.length
    if (length > maxMessageBytes) throw messageTooLarge(maxMessageBytes)
  }
}

/** Envelopes are one byte of flags, four bytes of length, and the message. */
function envelopeCheck({ maxMessageBytes }: BodyLimits): (chunk: Uint8Array) => void {
  let seen = 0
  let length = 0
  let left = 0
  return (chunk) => {
    let at = 0
    while (at < chunk.length) {
      if (left > 0) {
        const step = Math.min(left, chunk.length - at)
        left -= step
        at += step
        continue
      }
      const byte = chunk[at++] ?? 0
      length = seen === 0 ? 0 : length * 256 + byte
      if (++seen < 5) continue
      if (length > maxMessageBytes) throw messageTooLarge(maxMessageBytes, length)
      left = length
      seen = 0
    }
  }
}

/** Resolves when reading is worth another try; rejects with why the call is over. */
async function moreOf(body: Readable, call: ServerCall): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const again = (): void => resolve()
  for (const event of wakingEvents) body.on(event, again)
  call.onEnd(reject)
  try {
    await promise
  } finally {
    for (const event of wakingEvents) body.off(event, again)
    call.offEnd(reject)
  }
}

const wakingEvents = ['readable', 'end', 'error', 'close'] as const
