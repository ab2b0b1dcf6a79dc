import { Readable } from 'node:stream'
import type { ConnectRouter } from '@connectrpc/connect'
import { createContextValues } from '@connectrpc/connect'
import type { UniversalServerResponse } from '@connectrpc/connect/protocol'
import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { answerWhole, pathOf, type Request, type Response, writeAnswer } from './answer.ts'
import { reasonOfCode } from './connect-error.ts'
import type { Cors } from './cors.ts'
import { decoderError } from './decoder-errors.ts'
import type { Chain, Outcome } from './middleware.ts'
import { answerJson } from './pages.ts'
import { type BodyLimits, isEnveloped, readBody } from './request-body.ts'
import { callKey } from './rpc.ts'
import { type Rpc, ServerCall } from './server-call.ts'

export interface DispatchOptions {
  readonly router: ConnectRouter
  readonly rpcs: ReadonlyMap<string, Rpc>
  readonly chain: Chain
  readonly cors: Cors
  /** Operations that are no RPCs. */
  readonly operations: (request: Request) => Target | undefined
  /** Answers what is neither. */
  readonly pages: (request: Request, response: Response) => Promise<void>
  readonly maxMessageBytes: number
  readonly bodyTimeoutMs: number
  readonly newId: () => string
  readonly log: Logger
}

/** What a request is for. */
export interface Target {
  readonly rpc: Rpc
  /** Makes the answer of a call; what fails is in the answer, and noted in `call.error`. */
  answer(request: Request, call: ServerCall): Promise<UniversalServerResponse>
}

export interface Dispatcher {
  handle(request: Request, response: Response): void
  /** Calls that are not over: the answer did not leave, or the implementation still works. */
  readonly calls: ReadonlySet<ServerCall>
  /** Resolves when no request is left, answered or not. */
  idle(): Promise<void>
}

/**
 * Takes each request of either HTTP version to its end: RPCs through the router of Connect, other operations by their own
 * answer, the rest to the pages.
 *
 * It stands in for `connectNodeAdapter`, over the same router, because that one leaves a stream half-open when it answers
 * before the body was read, hands over no end of the answer to wait for, and destroys bodies that it stops reading.
 */
export function createDispatcher(options: DispatchOptions): Dispatcher {
  const calls = new Set<ServerCall>()
  const open = new Set<Promise<void>>()
  const handlers = new Map(options.router.handlers.map((handler) => [handler.requestPath, handler]))

  async function dispatch(request: Request, response: Response): Promise<void> {
    const cors = options.cors.apply(request, response)
    if (cors === 'preflight') return await answerWhole(request, response, 204, {})
    if (cors === 'refused') {
      return await answerJson(request, response, 403, 'permission_denied', 'calls from this origin are not allowed')
    }
    const target = rpcOf(request) ?? options.operations(request)
    if (target === undefined) return await answerUnknown(request, response, options)
    const call = new ServerCall(options.newId(), target.rpc, request.headers, peerAddressOf(request))
    calls.add(call)
    response.once('close', () => {
      if (!response.writableEnded) call.callerLeft()
    })
    let answer: UniversalServerResponse | undefined
    try {
      answer = await target.answer(request, call)
      await writeAnswer(answer, request, response, call.signal, () => {
        call.answeredMs = performance.now()
      })
    } finally {
      end(call, answer)
    }
  }

  function rpcOf(request: Request): Target | undefined {
    const path = pathOf(request)
    const handler = handlers.get(path)
    const rpc = options.rpcs.get(path)
    if (handler === undefined || rpc === undefined) return undefined
    return {
      rpc,
      async answer(_request, call) {
        const ask = (body: AsyncIterable<Uint8Array>): Promise<UniversalServerResponse> =>
          handler({
            httpVersion: request.httpVersion,
            method: request.method ?? '',
            url: `http://tollgate${request.url}`,
            header: headersOf(request),
            body,
            signal: call.signal,
            contextValues: createContextValues().set(callKey, call),
          })
        const answer = await ask(readBody(request, call, bodyLimits(rpc, request, options)))
        const refused = decoderError(call, options.maxMessageBytes)
        if (refused === undefined) return answer
        // The router's own refusals have no details. Asked again, it refuses for the reason that the call now has.
        call.error = refused
        void answer.body?.[Symbol.asyncIterator]().return?.()
        return await ask(Readable.from([]))
      },
    }
  }

  function end(call: ServerCall, answer: UniversalServerResponse | undefined): void {
    // Requests that the router refused for their method or content type never became a call.
    if (call.entered > 0) options.chain.exit(call, outcomeOf(call, answer))
    void call.settled().then(() => calls.delete(call))
  }

  return {
    calls,
    handle(request, response) {
      const done = dispatch(request, response).catch((err: unknown) => {
        options.log.error({ err }, 'request failed outside of any call')
        response.destroy()
      })
      open.add(done)
      void done.then(() => open.delete(done))
    },
    async idle() {
      while (open.size + calls.size > 0) {
        await Promise.all([...open, ...[...calls].map((call) => call.settled())])
      }
    },
  }
}

/** gRPC callers understand a status only; to them a bare 404 is UNIMPLEMENTED at best, with a text of their library's. */
async function answerUnknown(request: Request, response: Response, { pages }: DispatchOptions): Promise<void> {
  const contentType = request.headers['content-type'] ?? ''
  const message = 'this RPC does not exist here'
  if (contentType.startsWith('application/grpc')) {
    const trailers = { 'grpc-status': '12', 'grpc-message': encodeURIComponent(message) }
    return await answerWhole(request, response, 200, { 'content-type': contentType, ...trailers })
  }
  if (request.method === 'POST') return await answerJson(request, response, 404, 'unimplemented', message)
  await pages(request, response)
}

/** What the observers are told. */
function outcomeOf(call: ServerCall, answer: UniversalServerResponse | undefined): Outcome {
  const ms = (call.answeredMs ?? performance.now()) - call.startedMs
  const error = errorOf(call, answer)
  return error === undefined ? { ms, httpStatus: 200 } : { ms, httpStatus: call.rpc.httpStatusOf(error), error }
}

/** Answers of RPCs that failed before any implementation ran carry their code in the status only. */
function errorOf(call: ServerCall, answer: UniversalServerResponse | undefined): TollgateError | undefined {
  if (call.error !== undefined) return call.error
  if (call.signal.reason instanceof TollgateError) return call.signal.reason
  if (answer === undefined) return new TollgateError('INTERNAL', 'internal error')
  if (call.rpc.method === undefined) return undefined
  const code = Number(answer.trailer?.get('grpc-status') ?? 0)
  if (code > 0) return new TollgateError(reasonOfCode(code), 'the request cannot be decoded')
  if (answer.status >= 400 || call.request === undefined) {
    return new TollgateError('INVALID_ARGUMENT', 'the request cannot be decoded')
  }
  return undefined
}

function bodyLimits(rpc: Rpc, request: Request, { maxMessageBytes, bodyTimeoutMs }: DispatchOptions): BodyLimits {
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

function peerAddressOf(request: Request): string {
  const address = request.socket.remoteAddress ?? ''
  return address.startsWith('::ffff:') ? address.slice(7) : address
}
