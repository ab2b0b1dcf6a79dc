import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf'
import { compressionGzip } from '@connectrpc/connect-node'
import { areWritten, type WrittenMessage } from '../written-message.ts'
import type { Answer } from './answer.ts'
import { AnswerHeaders } from './answer-headers.ts'
import { failCall } from './connect-error.ts'
import { type Exchange, noBytes } from './exchange.ts'
import {
  acceptsGzip,
  announceEncoding,
  compressMinBytes,
  envelope,
  envelopeBytes,
  failureTrailers,
  grpc,
  okTrailers,
  writeEnvelope,
} from './plain-formats.ts'
import { type PlainRpc, requestOf } from './plain-rpcs.ts'
import { invoke, iteratorOf, messagesOf } from './rpc.ts'
import type { ServerCall } from './server-call.ts'
import { type Last, type Outlet, PartsAnswer } from './streamed-answer.ts'

/** Makes the answer of a plain call over gRPC whose answer is a stream. */
export async function answerStream(exchange: Exchange, call: ServerCall, plain: PlainRpc): Promise<Answer> {
  const headers = new AnswerHeaders(['x-request-id', call.id])
  call.answerWith(headers)
  try {
    const asked = requestOf(exchange, call, plain)
    const request = asked instanceof Promise ? await call.race(asked, plain.late) : asked
    if (request instanceof Uint8Array) return await plain.options.askRouter(exchange, call, request)
    const parts = iteratorOf(invoke(plain.handler, request, call))
    return new PlainStream(parts, headers, call, plain, acceptsGzip(exchange.headers['grpc-accept-encoding']))
  } catch (thrown) {
    return grpc.failure(failCall(call, thrown), headers, exchange.headers)
  }
}

class PlainStream extends PartsAnswer<unknown> {
  readonly hasTrailers = true
  readonly #plain: PlainRpc
  readonly #compresses: boolean
  /** A longer message needs more than a frame: it is compressed, or refused. */
  readonly #frameMaxBytes: number

  constructor(
    parts: AsyncIterator<unknown>,
    headers: AnswerHeaders,
    call: ServerCall,
    plain: PlainRpc,
    compresses: boolean,
  ) {
    super(parts, headers, call, plain.late)
    this.#plain = plain
    this.#compresses = compresses
    this.#frameMaxBytes = Math.min(plain.options.writeMaxBytes, compresses ? compressMinBytes - 1 : Infinity)
    announceEncoding(headers, compresses)
  }

  protected put(part: unknown, outlet: Outlet): Promise<void> | undefined {
    const messages = messagesOf(part)
    const frames = areWritten(messages) ? framesOf(messages, this.#frameMaxBytes) : undefined
    if (frames === undefined) return this.#putEach(messages, outlet)
    outlet.put(frames)
  }

  protected ended(): Last {
    return { bytes: noBytes, trailers: okTrailers }
  }

  protected failed(thrown: unknown): Last {
    return { bytes: noBytes, trailers: failureTrailers(failCall(this.call, thrown)) }
  }

  /** One after the other, as the caller reads them. */
  async #putEach(messages: readonly MessageInitShape<DescMessage>[], outlet: Outlet): Promise<void> {
    for (const each of messages) {
      const message = this.#plain.write(each)
      const isLarge = this.#compresses && message.length >= compressMinBytes
      outlet.put(isLarge ? await compressed(message) : envelope(0, message))
      if (outlet.isFull) await outlet.drained()
    }
  }
}

/** Messages that leave at once may be so long together. */
const framesMaxBytes = 131_072

/** The frames of messages, in one piece; undefined when one of them is longer than `maxBytes`, or all of them are too long. */
function framesOf(messages: readonly WrittenMessage[], maxBytes: number): Uint8Array | undefined {
  let length = 0
  for (const { binaryLength } of messages) {
    if (binaryLength > maxBytes) return undefined
    length += envelopeBytes + binaryLength
  }
  if (length > framesMaxBytes) return undefined
  const frames = Buffer.allocUnsafe(length)
  let at = 0
  for (const message of messages) {
    const { binaryLength } = message
    writeEnvelope(frames, at, 0, binaryLength)
    message.writeBinary(frames, at + envelopeBytes)
    at += envelopeBytes + binaryLength
  }
  return frames
}

async function compressed(message: Uint8Array): Promise<Uint8Array> {
  return envelope(1, await compressionGzip.compress(new Uint8Array(message)))
}
