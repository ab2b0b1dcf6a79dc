import { create } from '@bufbuild/protobuf'
import type { UniversalServerResponse } from '@connectrpc/connect/protocol'
import type { WholeAnswer } from './answer.ts'
import { AnswerHeaders } from './answer-headers.ts'
import { failCall } from './connect-error.ts'
import type { Exchange } from './exchange.ts'
import { type PlainRpc, requestOf } from './plain-rpcs.ts'
import { invoke, messageOf } from './rpc.ts'
import type { ServerCall } from './server-call.ts'

/** Makes the answer of a plain unary call. */
export async function answerUnary(
  exchange: Exchange,
  call: ServerCall,
  plain: PlainRpc,
): Promise<WholeAnswer | UniversalServerResponse> {
  const { format, late } = plain
  const headers = new AnswerHeaders(['x-request-id', call.id])
  call.answerWith(headers)
  try {
    const message = await call.race(serve(exchange, call, plain), late)
    return message instanceof Uint8Array ? await format.success(message, headers, exchange.headers) : message
  } catch (thrown) {
    return format.failure(failCall(call, thrown), headers, exchange.headers)
  }
}

/** The bytes of the answer's message, or the answer of the router to a body that is not plain. */
async function serve(
  exchange: Exchange,
  call: ServerCall,
  plain: PlainRpc,
): Promise<Uint8Array | UniversalServerResponse> {
  const { handler, method, writing, options } = plain
  const request = await requestOf(exchange, call, plain)
  if (request instanceof Uint8Array) return options.askRouter(exchange, call, request)
  const answer = await invoke(handler, request, call)
  return writing.serialize(create(method.output, messageOf(answer)))
}
