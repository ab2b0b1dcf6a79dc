import { create } from '@bufbuild/protobuf'
import { compressionGzip } from '@connectrpc/connect-node'
import type { Answer } from './answer.ts'
import { AnswerHeaders } from './answer-headers.ts'
import { failCall } from './connect-error.ts'
import { type Exchange, noBytes } from './exchange.ts'
import {
  acceptsGzip,
  announceEncoding,
  compressMinBytes,
  envelope,
  failureTrailers,
  grpc,
  okTrailers,
} from './plain-formats.ts'
import { type PlainRpc, requestOf } from './plain-rpcs.ts'
import { invoke, iteratorOf, messageOf } from './rpc.ts'
import type { ServerCall } from './server-call.ts'
import { type Last, type Outlet, type PartWriter, pumpParts, type StreamedAnswer } from './streamed-answer.ts'

/** Makes the answer of a plain call over gRPC whose answer is a stream. */
export async function answerStream(exchange: Exchange, call: ServerCall, plain: PlainRpc): Promise<Answer> {
  const headers = new AnswerHeaders(['x-request-id', call.id])
  call.answerWith(headers)
  try {
    const request = await call.race(requestOf(exchange, call, plain), plain.late)
    if (request instanceof Uint8Array) return await plain.options.askRouter(exchange, call, request)
    const parts = iteratorOf(invoke(plain.handler, request, call))
    return new PlainStream(parts, headers, call, plain, acceptsGzip(exchange.headers['grpc-accept-encoding']))
  } catch (thrown) {
    return grpc.failure(failCall(call, thrown), headers, exchange.headers)
  }
}

class PlainStream implements StreamedAnswer, PartWriter<unknown> {
  readonly status = 200
  readonly hasTrailers = true
  readonly headers: AnswerHeaders
  readonly #parts: AsyncIterator<unknown>
  readonly #call: ServerCall
  readonly #plain: PlainRpc
  readonly #compresses: boolean

  constructor(
    parts: AsyncIterator<unknown>,
    headers: AnswerHeaders,
    call: ServerCall,
    plain: PlainRpc,
    compresses: boolean,
  ) {
    this.#parts = parts
    this.headers = headers
    this.#call = call
    this.#plain = plain
    this.#compresses = compresses
    announceEncoding(headers, compresses)
  }

  pump(outlet: Outlet): Promise<Last> {
    return pumpParts(this.#parts, this, outlet, this.#call, this.#plain.late)
  }

  encode(part: unknown): Uint8Array | Promise<Uint8Array> {
    const { method, writing } = this.#plain
    const message = writing.serialize(create(method.output, messageOf(part)))
    return this.#compresses && message.length >= compressMinBytes ? compressed(message) : envelope(0, message)
  }

  ended(): Last {
    return { bytes: noBytes, trailers: okTrailers }
  }

  failed(thrown: unknown): Last {
    return { bytes: noBytes, trailers: failureTrailers(failCall(this.#call, thrown)) }
  }
}

async function compressed(message: Uint8Array): Promise<Uint8Array> {
  return envelope(1, await compressionGzip.compress(new Uint8Array(message)))
}
