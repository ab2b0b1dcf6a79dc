import type { TollgateError } from '../errors.ts'
import type { ServerCall } from './server-call.ts'

/**
 * The chain that every call goes through, on every wire. It is data: an ordered list of named entries.
 *
 * Entries of phase `headers` run before a byte of the body is read, so that what they refuse costs nothing. Entries of
 * phase `message` run on each decoded request message. `exit` runs in reverse order, once, for those that were entered,
 * after the answer left.
 */
export interface Middleware {
  readonly name: MiddlewareName
  /** Why it stands where it stands. */
  readonly why: string
  readonly phase: 'headers' | 'message'
  /** Throws a TollgateError to refuse the call, or rejects with it. A promise is for what has to be waited for. */
  enter?(call: ServerCall): undefined | Promise<void>
  /** Must not throw. */
  exit?(call: ServerCall, outcome: Outcome): void
}

/** How a call ended. */
export interface Outcome {
  /** From the arrival of the headers until the answer was handed over, in milliseconds. */
  readonly ms: number
  readonly httpStatus: number
  /** What the caller was told; absent when the call succeeded. */
  readonly error?: TollgateError
}

/** The one order; {@link createChain} refuses any other. */
export const middlewareOrder = [
  'trace',
  'observe',
  'deadline',
  'authenticate',
  'authorize',
  'confine',
  'validate',
] as const

export type MiddlewareName = (typeof middlewareOrder)[number]

export interface Chain {
  readonly middlewares: readonly Middleware[]
  /** Phase `headers`; rejects with the refusal. Undefined when the call passed, and there was nothing to wait for. */
  headers(call: ServerCall): Promise<void> | undefined
  /** Phase `message`, for `call.request`; throws or rejects with the refusal. Most often there is nothing to wait for. */
  message(call: ServerCall): Promise<void> | undefined
  exit(call: ServerCall, outcome: Outcome): void
}

/** Throws when the list is not exactly {@link middlewareOrder}, or when a message entry stands before a headers entry. */
export function createChain(middlewares: readonly Middleware[]): Chain {
  const names = middlewares.map((middleware) => middleware.name)
  if (names.join() !== middlewareOrder.join()) {
    throw new Error(`middleware order is ${names.join(', ')}; it must be ${middlewareOrder.join(', ')}`)
  }
  const ofHeaders = middlewares.filter((middleware) => middleware.phase === 'headers')
  const ofMessage = middlewares.slice(ofHeaders.length)
  if (ofMessage.some((middleware) => middleware.phase === 'headers')) {
    throw new Error('a middleware of phase "message" stands before one of phase "headers"')
  }
  /** Enters those from `at` to `end`; a promise only where one of them makes one. */
  function enterFrom(at: number, end: number, call: ServerCall): Promise<void> | undefined {
    for (let next = at; next < end; next++) {
      if (call.entered <= next) call.entered = next + 1
      const entering = middlewares[next]?.enter?.(call)
      if (entering !== undefined) return entering.then(() => enterFrom(next + 1, end, call))
    }
    return undefined
  }

  return {
    middlewares,
    headers(call) {
      try {
        return enterFrom(0, ofHeaders.length, call)
      } catch (refusal) {
        return Promise.reject(refusal)
      }
    },
    message: (call) => enterFrom(ofHeaders.length, middlewares.length, call),
    exit(call, outcome) {
      for (let at = call.entered - 1; at >= 0; at--) middlewares[at]?.exit?.(call, outcome)
    },
  }
}
