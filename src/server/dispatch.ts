import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { PassingLine, type Place } from '../passing-line.ts'
import { turnsEnd } from '../turn.ts'
import { type Answer, answerWhole, writeAnswer } from './answer.ts'
import { AnswerHeaders } from './answer-headers.ts'
import { reasonOfCode } from './connect-error.ts'
import type { Cors } from './cors.ts'
import type { Exchange } from './exchange.ts'
import type { Chain, Outcome } from './middleware.ts'
import { answerJson } from './pages.ts'
import { peerCertificateOf } from './peer-certificate.ts'
import { type Rpc, ServerCall } from './server-call.ts'

export interface DispatchOptions {
  /** Targets of RPCs: the first one that takes a request has it. */
  readonly rpcs: readonly ((exchange: Exchange) => Target | undefined)[]
  readonly chain: Chain
  readonly cors: Cors
  /** Operations that are no RPCs. */
  readonly operations: (exchange: Exchange) => Target | undefined
  /** Answers what is neither. */
  readonly pages: (exchange: Exchange) => Promise<void>
  /** Address of the peer, without port. */
  readonly peerAddressOf: (exchange: Exchange) => string
  readonly newId: () => string
  /** Asked before the answer of a call that failed leaves, perhaps several times; the answer waits for what it returns. */
  readonly failed: (call: ServerCall) => Promise<void> | undefined
  readonly log: Logger
}

/** What a request is for. */
export interface Target {
  readonly rpc: Rpc
  /** Makes the answer of a call; what fails is in the answer, and noted in `call.error`. */
  answer(exchange: Exchange, call: ServerCall): Promise<Answer>
}

export interface Dispatcher {
  handle(exchange: Exchange): void
  /** Calls that are not over: the answer did not leave, or the implementation still works. */
  readonly calls: Pick<PassingLine<ServerCall>, 'size' | 'values'>
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
  const { chain, cors, failed, newId, peerAddressOf } = options
  const calls = new PassingLine<ServerCall>()
  let open = 0
  let whenIdle: (() => void)[] = []

  function tellIfIdle(): void {
    if (open + calls.size > 0) return
    const told = whenIdle
    whenIdle = []
    for (const resolve of told) resolve()
  }

  async function handle(exchange: Exchange): Promise<void> {
    open++
    await turnsEnd()
    try {
      const origin = cors.apply(exchange)
      const target = origin === 'pass' ? targetOf(exchange) : undefined
      if (target === undefined) {
        await answerNoCall(exchange, origin)
      } else {
        const call = callOf(exchange, target)
        const place = calls.add(call)
        let answer: Answer | undefined
        try {
          answer = await target.answer(exchange, call)
          await writeAnswer(answer, exchange, call, told)
        } finally {
          // A caller that left before its answer was denied all the same.
          void told(call)
          end(call, answer, place)
        }
      }
    } catch (err) {
      options.log.error({ err }, 'request failed outside of any call')
      exchange.cut()
    }
    open--
    tellIfIdle()
  }

  function callOf(exchange: Exchange, target: Target): ServerCall {
    const certificate = () => peerCertificateOf(exchange)
    const call = new ServerCall(newId(), target.rpc, exchange.headers, peerAddressOf(exchange), certificate)
    exchange.onLeft(() => call.callerLeft())
    // Some send a request and take it back in one turn.
    if (exchange.isGone) call.callerLeft()
    return call
  }

  function told(call: ServerCall): Promise<void> | undefined {
    return call.error === undefined ? undefined : failed(call)
  }

  async function answerNoCall(exchange: Exchange, origin: ReturnType<Cors['apply']>): Promise<void> {
    if (origin === 'preflight') return await answerWhole(exchange, 204, new AnswerHeaders())
    if (origin === 'pass') return await answerUnknown(exchange, options)
    await answerJson(exchange, 403, 'permission_denied', 'calls from this origin are not allowed')
  }

  function targetOf(exchange: Exchange): Target | undefined {
    for (const find of options.rpcs) {
      const target = find(exchange)
      if (target !== undefined) return target
    }
    return options.operations(exchange)
  }

  function end(call: ServerCall, answer: Answer | undefined, place: Place<ServerCall>): void {
    // Requests that the router refused for their method or content type never became a call.
    if (call.entered > 0) chain.exit(call, outcomeOf(call, answer))
    if (call.isSettled) calls.leave(place)
    else void settle(call, place)
  }

  async function settle(call: ServerCall, place: Place<ServerCall>): Promise<void> {
    await call.settled()
    calls.leave(place)
    tellIfIdle()
  }

  return {
    calls,
    handle: (exchange) => void handle(exchange),
    async idle() {
      while (open + calls.size > 0) await new Promise<void>((resolve) => whenIdle.push(resolve))
    },
  }
}

/** gRPC callers understand a status only; to them a bare 404 is UNIMPLEMENTED at best, with a text of their library's. */
async function answerUnknown(exchange: Exchange, { pages }: DispatchOptions): Promise<void> {
  const contentType = exchange.headers['content-type'] ?? ''
  const message = 'this RPC does not exist here'
  if (contentType.startsWith('application/grpc')) {
    const status = ['grpc-status', '12', 'grpc-message', encodeURIComponent(message)]
    return await answerWhole(exchange, 200, new AnswerHeaders(['content-type', contentType, ...status]))
  }
  if (exchange.method === 'POST') return await answerJson(exchange, 404, 'unimplemented', message)
  await pages(exchange)
}

/** What the observers are told. */
function outcomeOf(call: ServerCall, answer: Answer | undefined): Outcome {
  const ms = (call.answeredMs ?? performance.now()) - call.startedMs
  const error = errorOf(call, answer)
  return error === undefined
    ? { ms, httpStatus: call.rpc.httpSuccess ?? 200 }
    : { ms, httpStatus: call.rpc.httpStatusOf(error), error }
}

/** Answers of RPCs that failed before any implementation ran carry their code in the status only. */
function errorOf(call: ServerCall, answer: Answer | undefined): TollgateError | undefined {
  if (call.error !== undefined) return call.error
  if (call.ended !== undefined) return call.ended
  if (answer === undefined) return new TollgateError('INTERNAL', 'internal error')
  if (call.rpc.method === undefined || 'whole' in answer || 'pump' in answer) return undefined
  const code = Number(answer.trailer?.get('grpc-status') ?? 0)
  if (code > 0) return new TollgateError(reasonOfCode(code), 'the request cannot be decoded')
  if (answer.status >= 400 || call.request === undefined) {
    return new TollgateError('INVALID_ARGUMENT', 'the request cannot be decoded')
  }
  return undefined
}
