import type { TollgateError } from '../errors.ts'
import type { Request } from './answer.ts'
import { messageTooLarge } from './connect-error.ts'
import { tooSlow } from './request-body.ts'
import { callerGone, type ServerCall } from './server-call.ts'

/** Bounds of a body that is one message. */
export interface WholeLimits {
  /** Largest message as sent, in bytes. */
  readonly maxMessageBytes: number
  /** Longest time until the whole body is there, in milliseconds. */
  readonly bodyTimeoutMs: number
}

/**
 * The whole body of a request, which most often is one chunk that is there already. Rejects with MESSAGE_TOO_LARGE as soon as
 * more came than a message and the `framing` bytes around it, and aborts the call when the body does not arrive in time.
 */
export function readWhole(
  request: Request,
  call: ServerCall,
  { maxMessageBytes, bodyTimeoutMs }: WholeLimits,
  framing: number,
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
  const chunks: Uint8Array[] = []
  let length = 0
  const timer = setTimeout(tooSlow, bodyTimeoutMs, call, bodyTimeoutMs)
  const settle = (): void => {
    clearTimeout(timer)
    request.off('data', onData)
    request.off('end', onEnd)
    request.off('close', onClose)
    call.offEnd(onCallEnd)
  }
  const onCallEnd = (reason: TollgateError): void => {
    settle()
    reject(reason)
  }
  const onData = (chunk: Uint8Array): void => {
    chunks.push(chunk)
    length += chunk.length
    if (length <= maxMessageBytes + framing) return
    settle()
    reject(messageTooLarge(maxMessageBytes))
  }
  const onEnd = (): void => {
    settle()
    const [only] = chunks
    resolve(only !== undefined && chunks.length === 1 ? only : Buffer.concat(chunks, length))
  }
  const onClose = (): void => {
    settle()
    reject(callerGone())
  }
  request.on('data', onData)
  request.on('end', onEnd)
  request.on('close', onClose)
  call.onEnd(onCallEnd)
  return promise
}

/**
 * The whole body of a request that is one message without any framing. Rejects as {@link readWhole}, and with
 * MESSAGE_TOO_LARGE before anything is read when its announced length is over the limit.
 */
export async function readUnframed(request: Request, call: ServerCall, limits: WholeLimits): Promise<Uint8Array> {
  const announced = Number(call.header('content-length') ?? 0)
  if (announced > limits.maxMessageBytes) throw messageTooLarge(limits.maxMessageBytes, announced)
  return await readWhole(request, call, limits, 0)
}
