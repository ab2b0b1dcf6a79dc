import type { UniversalServerResponse } from '@connectrpc/connect/protocol'
import type { WholeAnswer } from './answer.ts'
import { AnswerHeaders } from './answer-headers.ts'
import { failCall } from './connect-error.ts'
import type { Exchange } from './exchange.ts'
import { type PlainRpc, requestOf } from './plain-rpcs.ts'
import { invoke, messageOf } from './rpc.ts'
import type { ServerCall } from './server-call.ts'

/** Makes the answer of a plain unary call. */
export function answerUnary(
  exchange: Exchange,
  call: ServerCall,
  plain: PlainRpc,
): Promise<WholeAnswer | UniversalServerResponse> {
  const headers = new AnswerHeaders(['x-request-id', call.id])
  call.answerWith(headers)
  return call.race(serve(exchange, call, plain, headers), plain.late, (thrown) =>
    plain.format.failure(failCall(call, thrown), headers, exchange.headers),
  )
}

/** The answer of the implementation, or that of the router to a body that is not plain. */
async function serve(
  exchange: Exchange,
  call: ServerCall,
  plain: PlainRpc,
  headers: AnswerHeaders,
): Promise<WholeAnswer | UniversalServerResponse> {
  const { handler, format, write, options } = plain
  const asked = requestOf(exchange, call, plain)
  const request = asked instanceof Promise ? await asked : asked
  if (request instanceof Uint8Array) return await options.askRouter(exchange, call, request)
  const answer = await invoke(handler, request, call)
  return format.success(write(messageOf(answer)), headers, exchange.headers)
}
