/**
 * The short way of RPCs. Connect's router serves every protocol in every variant, and each call pays for it with half a
 * dozen `Headers`, a `URL`, and a chain of generators. Nearly all calls are **plain**: unary over gRPC or Connect, binary or
 * JSON, or streams of answers over gRPC, with a body that is not compressed. Those go from the bytes of the body to the
 * implementation and back without any of it; what is not plain goes through the router. Both ways have the same middleware,
 * implementations and answers: plain-rpcs.test.ts holds one against the other.
 */
import { create, type DescMessage, type DescMethod, type Message } from '@bufbuild/protobuf'
import {
  createMethodSerializationLookup,
  type Serialization,
  type UniversalServerResponse,
} from '@connectrpc/connect/protocol'
import type { Logger } from 'pino'
import { type WriteAnswer, writeBinary } from './binary-writer.ts'
import type { Target } from './dispatch.ts'
import type { Exchange } from './exchange.ts'
import { readJson } from './json-reader.ts'
import { writeJson } from './json-writer.ts'
import type { Chain } from './middleware.ts'
import { formatOf, grpc, type PlainFormat, plainFormats } from './plain-formats.ts'
import { answerStream } from './plain-stream.ts'
import { answerUnary } from './plain-unary.ts'
import { readUnframed, readWhole, type WholeLimits } from './read-whole.ts'
import { lateTo, type ServiceRegistration } from './rpc.ts'
import type { Late, Rpc, ServerCall } from './server-call.ts'

export interface PlainOptions extends WholeLimits {
  readonly registrations: readonly ServiceRegistration[]
  /** By path. */
  readonly rpcs: ReadonlyMap<string, Rpc>
  readonly chain: Chain
  readonly log: Logger
  /** Largest answer message. */
  readonly writeMaxBytes: number
  /** Asks the router, for a body that turned out not to be plain. */
  readonly askRouter: (exchange: Exchange, call: ServerCall, body: Uint8Array) => Promise<UniversalServerResponse>
}

/** One RPC in one format, with everything that its calls need. */
export interface PlainRpc {
  readonly method: DescMethod
  readonly format: PlainFormat
  readonly reading: Serialization<Message>
  /** The bytes of what an implementation answers. */
  readonly write: WriteAnswer
  readonly handler: unknown
  readonly late: Late
  readonly options: PlainOptions
}

/** Finds the target of a plain request; undefined for all others. */
export function createPlainRpcs(options: PlainOptions): (exchange: Exchange) => Target | undefined {
  const targets = new Map<string, ReadonlyMap<PlainFormat, Target>>()
  const late = lateTo(options.log)
  for (const { service, implementation } of options.registrations) {
    for (const method of service.methods) {
      const path = `/${service.typeName}/${method.name}`
      const rpc = options.rpcs.get(path)
      if (rpc === undefined) continue
      const make = (format: PlainFormat) => plainRpc(method, format, implementation(method.localName), late, options)
      if (method.methodKind === 'unary') {
        targets.set(path, new Map(plainFormats.map((format) => [format, unaryTarget(rpc, make(format))])))
      } else if (method.methodKind === 'server_streaming') {
        targets.set(path, new Map([[grpc, streamTarget(rpc, make(grpc))]]))
      }
    }
  }
  return (exchange) => {
    const format = formatOf(exchange)
    return format === undefined ? undefined : targets.get(exchange.path)?.get(format)
  }
}

function plainRpc(
  method: DescMethod,
  format: PlainFormat,
  handler: unknown,
  late: Late,
  options: PlainOptions,
): PlainRpc {
  const serialization = createMethodSerializationLookup(
    method,
    undefined,
    // A misspelled field would be dropped otherwise, and a price without its rates would be 0.
    { ignoreUnknownFields: false },
    { readMaxBytes: options.maxMessageBytes, writeMaxBytes: options.writeMaxBytes },
  )
  return {
    method,
    format,
    reading: format.isBinary ? serialization.getI(true) : readJson(method.input, serialization.getI(false)),
    write: format.isBinary
      ? writeBinary(method.output, serialization.getO(true), options.writeMaxBytes)
      : writerOf(method.output, writeJson(method.output, serialization.getO(false), options.writeMaxBytes)),
    handler,
    late,
    options,
  }
}

function writerOf(desc: DescMessage, { serialize }: Serialization<Message>): WriteAnswer {
  return (answer) => serialize(create(desc, answer))
}

function unaryTarget(rpc: Rpc, plain: PlainRpc): Target {
  return { rpc, answer: (exchange, call) => answerUnary(exchange, call, plain) }
}

function streamTarget(rpc: Rpc, plain: PlainRpc): Target {
  return { rpc, answer: (exchange, call) => answerStream(exchange, call, plain) }
}

/** What a request asks for: a message, or the bytes of a body that is not plain. */
export type Requested = Message | Uint8Array

/**
 * The request message, after the chain let it pass; or the bytes of a body that is not plain, which the chain has not seen.
 * A promise only where there is something to wait for.
 */
export function requestOf(exchange: Exchange, call: ServerCall, plain: PlainRpc): Requested | Promise<Requested> {
  const entering = plain.options.chain.headers(call)
  return entering === undefined
    ? readRequest(exchange, call, plain)
    : entering.then(() => readRequest(exchange, call, plain))
}

function readRequest(exchange: Exchange, call: ServerCall, plain: PlainRpc): Requested | Promise<Requested> {
  call.throwIfEnded()
  const { format, options } = plain
  const coming = format.isEnveloped ? readWhole(exchange, call, options, 5) : readUnframed(exchange, call, options)
  return coming instanceof Uint8Array
    ? admitted(coming, call, plain)
    : coming.then((body) => admitted(body, call, plain))
}

function admitted(body: Uint8Array, call: ServerCall, plain: PlainRpc): Requested | Promise<Requested> {
  call.throwIfEnded()
  const message = messageIn(body, plain.format, plain.reading)
  if (message === undefined) return body
  call.request = message
  const admitting = plain.options.chain.message(call)
  if (admitting === undefined) return message
  return admitting.then(() => {
    call.throwIfEnded()
    return message
  })
}

/** Undefined for bytes that are no message: the router has the words for what is wrong with them. */
function messageIn(
  body: Uint8Array,
  { isEnveloped }: PlainFormat,
  reading: Serialization<Message>,
): Message | undefined {
  try {
    if (!isEnveloped) return reading.parse(body)
    return isOneEnvelope(body) ? reading.parse(body.subarray(5)) : undefined
  } catch {
    return undefined
  }
}

/** A flags byte that says nothing, four bytes of length, and so many bytes. */
function isOneEnvelope(body: Uint8Array): boolean {
  const [flags, a = 0, b = 0, c = 0, d = 0] = body
  return flags === 0 && body.length - 5 === ((a << 24) | (b << 16) | (c << 8) | d) >>> 0
}
