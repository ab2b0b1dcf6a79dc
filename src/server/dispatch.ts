import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { type Answer, answerWhole, type Request, type Response, writeAnswer } from './answer.ts'
import { reasonOfCode } from './connect-error.ts'
import type { Cors } from './cors.ts'
import type { Chain, Outcome } from './middleware.ts'
import { answerJson } from './pages.ts'
import { peerCertificateOf } from './peer-certificate.ts'
import { type Rpc, ServerCall } from './server-call.ts'

export interface DispatchOptions {
  /** Targets of RPCs: the first one that takes a request has it. */
  readonly rpcs: readonly ((request: Request) => Target | undefined)[]
  readonly chain: Chain
  readonly cors: Cors
  /** Operations that are no RPCs. */
  readonly operations: (request: Request) => Target | undefined
  /** Answers what is neither. */
  readonly pages: (request: Request, response: Response) => Promise<void>
  /** Address of the peer, without port. */
  readonly peerAddressOf: (request: Request) => string
  readonly newId: () => string
  /** Asked before the answer of a call that failed leaves, perhaps several times; the answer waits for what it returns. */
  readonly failed: (call: ServerCall) => Promise<void> | undefined
  readonly log: Logger
}

/** What a request is for. */
export interface Target {
  readonly rpc: Rpc
  /** Makes the answer of a call; what fails is in the answer, and noted in `call.error`. */
  answer(request: Request, call: ServerCall): Promise<Answer>
}

export interface Dispatcher {
  handle(request: Request, response: Response): void
  /** Calls that are not over: the answer did not leave, or the implementation still works. */
  readonly calls: ReadonlySet<ServerCall>
  /** Resolves when no request is left, answered or not. */
  idle(): Promise<void>
}

/**
 * Takes each request of either HTTP version to its end: RPCs by the short way or through the router of Connect, other
 * operations by their own answer, the rest to the pages.
 *
 * It stands in for `connectNodeAdapter` because that one leaves a stream half-open when it answers
 * before the body was read, hands over no end of the answer to wait for, and destroys bodies that it stops reading.
 */
export function createDispatcher(options: DispatchOptions): Dispatcher {
  const calls = new Set<ServerCall>()
  const open = new Set<Promise<void>>()

  async function dispatch(request: Request, response: Response): Promise<void> {
    const cors = options.cors.apply(request, response)
    if (cors === 'preflight') return await answerWhole(request, response, 204, {})
    if (cors === 'refused') {
      return await answerJson(request, response, 403, 'permission_denied', 'calls from this origin are not allowed')
    }
    const target = targetOf(request)
    if (target === undefined) return await answerUnknown(request, response, options)
    const certificate = () => peerCertificateOf(request)
    const call = new ServerCall(
      options.newId(),
      target.rpc,
      request.headers,
      options.peerAddressOf(request),
      certificate,
    )
    calls.add(call)
    response.once('close', () => {
      if (!response.writableEnded) call.callerLeft()
    })
    const told = (): Promise<void> | undefined => (call.error === undefined ? undefined : options.failed(call))
    let answer: Answer | undefined
    try {
      answer = await target.answer(request, call)
      const written = (): void => {
        call.answeredMs = performance.now()
      }
      await writeAnswer(answer, request, response, call, told, written)
    } finally {
      // A caller that left before its answer was denied all the same.
      void told()
      end(call, answer)
    }
  }

  function targetOf(request: Request): Target | undefined {
    for (const find of options.rpcs) {
      const target = find(request)
      if (target !== undefined) return target
    }
    return options.operations(request)
  }

  function end(call: ServerCall, answer: Answer | undefined): void {
    // Requests that the router refused for their method or content type never became a call.
    if (call.entered > 0) options.chain.exit(call, outcomeOf(call, answer))
    if (call.isSettled) calls.delete(call)
    else void call.settled().then(() => calls.delete(call))
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
function outcomeOf(call: ServerCall, answer: Answer | undefined): Outcome {
  const ms = (call.answeredMs ?? performance.now()) - call.startedMs
  const error = errorOf(call, answer)
  return error === undefined ? { ms, httpStatus: 200 } : { ms, httpStatus: call.rpc.httpStatusOf(error), error }
}

/** Answers of RPCs that failed before any implementation ran carry their code in the status only. */
function errorOf(call: ServerCall, answer: Answer | undefined): TollgateError | undefined {
  if (call.error !== undefined) return call.error
  if (call.ended !== undefined) return call.ended
  if (answer === undefined) return new TollgateError('INTERNAL', 'internal error')
  if (call.rpc.method === undefined || 'whole' in answer) return undefined
  const code = Number(answer.trailer?.get('grpc-status') ?? 0)
  if (code > 0) return new TollgateError(reasonOfCode(code), 'the request cannot be decoded')
  if (answer.status >= 400 || call.request === undefined) {
    return new TollgateError('INVALID_ARGUMENT', 'the request cannot be decoded')
  }
  return undefined
}
