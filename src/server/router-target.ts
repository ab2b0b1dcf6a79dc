import { Readable } from 'node:stream'
import { type ConnectRouter, createContextValues } from '@connectrpc/connect'
import type { UniversalServerResponse } from '@connectrpc/connect/protocol'
import { decoderError } from './decoder-errors.ts'
import type { Target } from './dispatch.ts'
import type { Exchange } from './exchange.ts'
import { type BodyLimits, isEnveloped, readBody } from './request-body.ts'
import { callKey } from './rpc.ts'
import type { Rpc, ServerCall } from './server-call.ts'

export interface RouterTargetOptions {
  readonly router: ConnectRouter
  /** By path. */
  readonly rpcs: ReadonlyMap<string, Rpc>
  readonly maxMessageBytes: number
  readonly bodyTimeoutMs: number
}

export interface RouterTargets {
  /** The target of any request for an RPC; undefined for others. */
  find(exchange: Exchange): Target | undefined
  /** Asks the router about a request whose body was read. */
  ask(exchange: Exchange, call: ServerCall, body: Uint8Array): Promise<UniversalServerResponse>
}

/** RPCs as Connect's router serves them: every protocol, every variant, unary and streams. */
export function createRouterTargets(options: RouterTargetOptions): RouterTargets {
  const { rpcs, maxMessageBytes } = options
  const handlers = new Map(options.router.handlers.map((handler) => [handler.requestPath, handler]))
  type Handler = (typeof options.router.handlers)[number]

  async function ask(
    handler: Handler,
    exchange: Exchange,
    call: ServerCall,
    body: AsyncIterable<Uint8Array>,
  ): Promise<UniversalServerResponse> {
    const once = (bytes: AsyncIterable<Uint8Array>): Promise<UniversalServerResponse> =>
      handler({
        httpVersion: exchange.httpVersion,
        method: exchange.method,
        url: `http://tollgate${exchange.url}`,
        header: headersOf(exchange),
        body: bytes,
        signal: call.signal,
        contextValues: createContextValues().set(callKey, call),
      })
    const answer = await once(body)
    const refused = decoderError(call, maxMessageBytes)
    if (refused === undefined) return answer
    // The router's own refusals have no details. Asked again, it refuses for the reason that the call now has.
    call.error = refused
    void answer.body?.[Symbol.asyncIterator]().return?.()
    return await once(Readable.from([]))
  }

  return {
    find({ path }) {
      const handler = handlers.get(path)
      const rpc = rpcs.get(path)
      if (handler === undefined || rpc === undefined) return undefined
      return {
        rpc,
        answer: (exchange, call) =>
          ask(handler, exchange, call, readBody(exchange.body, call, bodyLimits(rpc, exchange, options))),
      }
    },
    ask(exchange, call, body) {
      const handler = handlers.get(exchange.path)
      if (handler === undefined) throw new Error(`${call.rpc.name} is not on the router`)
      return ask(handler, exchange, call, Readable.from([body]))
    },
  }
}

function bodyLimits(rpc: Rpc, exchange: Exchange, { maxMessageBytes, bodyTimeoutMs }: RouterTargetOptions): BodyLimits {
  const kind = rpc.method?.methodKind
  const streams = kind === 'bidi_streaming' || kind === 'client_streaming'
  return {
    maxMessageBytes,
    bodyTimeoutMs: streams ? undefined : bodyTimeoutMs,
    enveloped: isEnveloped(exchange.headers['content-type']),
  }
}

/** Timeouts are left out: the chain enforces them, and a second timer of the router's would say so in its own words. */
function headersOf(exchange: Exchange): Headers {
  const headers = new Headers()
  for (const [name, value] of Object.entries(exchange.headers)) {
    if (value === undefined || name.startsWith(':') || name === 'grpc-timeout' || name === 'connect-timeout-ms')
      continue
    if (typeof value === 'string') headers.set(name, value)
    else for (const each of value) headers.append(name, each)
  }
  return headers
}
