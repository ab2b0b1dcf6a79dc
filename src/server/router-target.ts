import { Readable } from 'node:stream'
import { type ConnectRouter, createContextValues } from '@connectrpc/connect'
import type { UniversalServerResponse } from '@connectrpc/connect/protocol'
import { pathOf, type Request } from './answer.ts'
import { decoderError } from './decoder-errors.ts'
import type { Target } from './dispatch.ts'
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
  find(request: Request): Target | undefined
  /** Asks the router about a request whose body was read. */
  ask(request: Request, call: ServerCall, body: Uint8Array): Promise<UniversalServerResponse>
}

/** RPCs as Connect's router serves them: every protocol, every variant, unary and streams. */
export function createRouterTargets(options: RouterTargetOptions): RouterTargets {
  const { rpcs, maxMessageBytes } = options
  const handlers = new Map(options.router.handlers.map((handler) => [handler.requestPath, handler]))
  type Handler = (typeof options.router.handlers)[number]

  async function ask(
    handler: Handler,
    request: Request,
    call: ServerCall,
    body: AsyncIterable<Uint8Array>,
  ): Promise<UniversalServerResponse> {
    const once = (bytes: AsyncIterable<Uint8Array>): Promise<UniversalServerResponse> =>
      handler({
        httpVersion: request.httpVersion,
        method: request.method ?? '',
        url: `http://tollgate${request.url}`,
        header: headersOf(request),
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
    find(request) {
      const path = pathOf(request)
      const handler = handlers.get(path)
      const rpc = rpcs.get(path)
      if (handler === undefined || rpc === undefined) return undefined
      return {
        rpc,
        answer: (_, call) => ask(handler, request, call, readBody(request, call, bodyLimits(rpc, request, options))),
      }
    },
    ask(request, call, body) {
      const handler = handlers.get(pathOf(request))
      if (handler === undefined) throw new Error(`${call.rpc.name} is not on the router`)
      return ask(handler, request, call, Readable.from([body]))
    },
  }
}

function bodyLimits(rpc: Rpc, request: Request, { maxMessageBytes, bodyTimeoutMs }: RouterTargetOptions): BodyLimits {
  const kind = rpc.method?.methodKind
  const streams = kind === 'bidi_streaming' || kind === 'client_streaming'
  return {
    maxMessageBytes,
    bodyTimeoutMs: streams ? undefined : bodyTimeoutMs,
    enveloped: isEnveloped(request.headers['content-type']),
  }
}

/** Timeouts are left out: the chain enforces them, and a second timer of the router's would say so in its own words. */
function headersOf(request: Request): Headers {
  const headers = new Headers()
  for (const [name, value] of Object.entries(request.headers)) {
    if (value === undefined || name.startsWith(':') || name === 'grpc-timeout' || name === 'connect-timeout-ms')
      continue
    if (typeof value === 'string') headers.set(name, value)
    else for (const each of value) headers.append(name, each)
  }
  return headers
}
