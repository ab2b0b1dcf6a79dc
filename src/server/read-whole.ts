import type { TollgateError } from '../errors.ts'
import { messageTooLarge } from './connect-error.ts'
import { type Exchange, noBytes } from './exchange.ts'
import { tooSlow } from './request-body.ts'
import type { ServerCall } from './server-call.ts'
import { SharedTimeout, type Waiting } from './shared-timeout.ts'

export type SlowBodies = Pick<SharedTimeout<ServerCall>, 'start' | 'stop'>

/** Ends calls whose body takes longer than `bodyTimeoutMs`. */
export function slowBodies(bodyTimeoutMs: number): SlowBodies {
  return new SharedTimeout<ServerCall>(bodyTimeoutMs, (call) => tooSlow(call, bodyTimeoutMs))
}

/** Bounds of a body that is one message. */
export interface WholeLimits {
  /** Largest message as sent, in bytes. */
  readonly maxMessageBytes: number
  /** Ends the calls whose body does not come as a whole in time; see {@link slowBodies}. */
  readonly slowBodies: SlowBodies
}

/**
 * The whole body of a request, which most often is there already: then it is no promise. Fails with MESSAGE_TOO_LARGE as
 * soon as more came than a message and the `framing` bytes around it, and ends the call when the body does not arrive in
 * time.
 */
export function readWhole(
  exchange: Exchange,
  call: ServerCall,
  limits: WholeLimits,
  framing: number,
): Uint8Array | Promise<Uint8Array> {
  const bytes = exchange.takeBody()
  if (bytes !== undefined) return fitting(bytes, limits, framing)
  if (exchange.isHttp2) return new WholeBody(exchange, call, limits, framing).bytes
  return awaitWhole(exchange, call, limits, framing)
}

/** Over HTTP/1.1, what came in one packet with its headers is there a moment after them. */
async function awaitWhole(
  exchange: Exchange,
  call: ServerCall,
  limits: WholeLimits,
  framing: number,
): Promise<Uint8Array> {
  await undefined
  const bytes = exchange.takeBody()
  if (bytes !== undefined) return fitting(bytes, limits, framing)
  return await new WholeBody(exchange, call, limits, framing).bytes
}

function fitting(bytes: Uint8Array, { maxMessageBytes }: WholeLimits, framing: number): Uint8Array {
  if (bytes.length > maxMessageBytes + framing) throw messageTooLarge(maxMessageBytes)
  return bytes
}

/**
 * The whole body of a request that is one message without any framing. Fails as {@link readWhole}, and with
 * MESSAGE_TOO_LARGE before anything is read when its announced length is over the limit.
 */
export function readUnframed(
  exchange: Exchange,
  call: ServerCall,
  limits: WholeLimits,
): Uint8Array | Promise<Uint8Array> {
  const announced = Number(call.header('content-length') ?? 0)
  if (announced > limits.maxMessageBytes) throw messageTooLarge(limits.maxMessageBytes, announced)
  return readWhole(exchange, call, limits, 0)
}

/** A body on its way. That its caller left ends the call, and with it the waiting. */
class WholeBody {
  readonly #whole = Promise.withResolvers<Uint8Array>()
  readonly #exchange: Exchange
  readonly #call: ServerCall
  readonly #limits: WholeLimits
  readonly #mostBytes: number
  readonly #waiting: Waiting<ServerCall>
  #first: Uint8Array | undefined
  #chunks: Uint8Array[] | undefined
  #length = 0

  constructor(exchange: Exchange, call: ServerCall, limits: WholeLimits, framing: number) {
    this.#exchange = exchange
    this.#call = call
    this.#limits = limits
    this.#mostBytes = limits.maxMessageBytes + framing
    this.#waiting = limits.slowBodies.start(call)
    const { body } = exchange
    body.on('data', this.#onData)
    body.on('end', this.#onEnd)
    call.onEnd(this.#fail)
  }

  /** Settles when all of it is there, or will not come. */
  get bytes(): Promise<Uint8Array> {
    return this.#whole.promise
  }

  readonly #onData = (chunk: Uint8Array): void => {
    this.#length += chunk.length
    if (this.#length > this.#mostBytes) this.#fail(messageTooLarge(this.#limits.maxMessageBytes))
    else if (this.#first === undefined) this.#first = chunk
    else if (this.#chunks === undefined) this.#chunks = [this.#first, chunk]
    else this.#chunks.push(chunk)
  }

  readonly #onEnd = (): void => {
    this.#stopWaiting()
    this.#whole.resolve(
      this.#chunks === undefined ? (this.#first ?? noBytes) : Buffer.concat(this.#chunks, this.#length),
    )
  }

  readonly #fail = (error: TollgateError): void => {
    this.#stopWaiting()
    const { body } = this.#exchange
    body.off('data', this.#onData)
    body.off('end', this.#onEnd)
    this.#whole.reject(error)
  }

  #stopWaiting(): void {
    this.#limits.slowBodies.stop(this.#waiting)
    this.#call.offEnd(this.#fail)
  }
}
