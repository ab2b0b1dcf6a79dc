/**
 * The short way of unary RPCs. Connect's router serves every protocol in every variant, and each call pays for it with half
 * a dozen `Headers`, a `URL`, and a chain of generators. Nearly all calls are **plain**: gRPC or Connect, binary or JSON,
 * with a body that is not compressed. Those go from the bytes of the body to the implementation and back without any of it;
 * what is not plain goes through the router. Both ways have the same middleware, implementations and answers:
 * plain-unary.test.ts holds one against the other.
 */
import { create, type DescMessage, type DescMethod, type Message } from '@bufbuild/protobuf'
import {
  createMethodSerializationLookup,
  type Serialization,
  type UniversalServerResponse,
} from '@connectrpc/connect/protocol'
import type { Logger } from 'pino'
import { pathOf, type Request, type WholeAnswer } from './answer.ts'
import { failCall } from './connect-error.ts'
import type { Chain } from './middleware.ts'
import { formatOf, type PlainFormat, plainFormats } from './plain-formats.ts'
import { readUnframed, readWhole } from './read-whole.ts'
import { invoke, lateTo, messageOf, type ServiceRegistration } from './rpc.ts'
import type { Rpc, ServerCall } from './server-call.ts'

export interface PlainUnaryOptions {
  readonly registrations: readonly ServiceRegistration[]
  /** By path. */
  readonly rpcs: ReadonlyMap<string, Rpc>
  readonly chain: Chain
  readonly log: Logger
  /** Largest request message. */
  readonly maxMessageBytes: number
  /** Largest answer message. */
  readonly writeMaxBytes: number
  readonly bodyTimeoutMs: number
  /** Asks the router, for a body that turned out not to be plain. */
  readonly askRouter: (request: Request, call: ServerCall, body: Uint8Array) => Promise<UniversalServerResponse>
}

/** What a plain request is for. */
export interface PlainTarget {
  readonly rpc: Rpc
  /** Makes the answer of a call; what fails is in the answer, and noted in `call.error`. */
  answer(request: Request, call: ServerCall): Promise<WholeAnswer | UniversalServerResponse>
}

/** Finds the target of a plain request; undefined for all others. */
export function createPlainUnary(options: PlainUnaryOptions): (request: Request) => PlainTarget | undefined {
  const targets = new Map<string, ReadonlyMap<PlainFormat, PlainTarget>>()
  for (const { service, implementation } of options.registrations) {
    for (const method of service.methods) {
      const path = `/${service.typeName}/${method.name}`
      const rpc = options.rpcs.get(path)
      if (rpc === undefined || method.methodKind !== 'unary') continue
      const handler = implementation(method.localName)
      targets.set(path, targetsOf(method, rpc, handler, options))
    }
  }
  return (request) => {
    const format = formatOf(request)
    return format === undefined ? undefined : targets.get(pathOf(request))?.get(format)
  }
}

function targetsOf(
  method: DescMethod,
  rpc: Rpc,
  handler: unknown,
  options: PlainUnaryOptions,
): ReadonlyMap<PlainFormat, PlainTarget> {
  const limits = { readMaxBytes: options.maxMessageBytes, writeMaxBytes: options.writeMaxBytes }
  const serialization = createMethodSerializationLookup(
    method,
    undefined,
    // A misspelled field would be dropped otherwise, and a price without its rates would be 0.
    { ignoreUnknownFields: false },
    limits,
  )
  return new Map(
    plainFormats.map((format) => {
      const reading: Serialization<Message> = serialization.getI(format.isBinary)
      const writing: Serialization<Message> = serialization.getO(format.isBinary)
      const target: PlainTarget = {
        rpc,
        answer: (request, call) =>
          answerPlain(request, call, { format, reading, writing, handler, output: method.output }, options),
      }
      return [format, target]
    }),
  )
}

interface Plain {
  readonly format: PlainFormat
  readonly reading: Serialization<Message>
  readonly writing: Serialization<Message>
  readonly handler: unknown
  readonly output: DescMessage
}

async function answerPlain(
  request: Request,
  call: ServerCall,
  plain: Plain,
  options: PlainUnaryOptions,
): Promise<WholeAnswer | UniversalServerResponse> {
  const headers = new Map([['x-request-id', call.id]])
  call.answerWith(headers)
  try {
    const message = await call.race(serve(request, call, plain, options), lateTo(options.log, call))
    return message instanceof Uint8Array ? await plain.format.success(message, headers, request) : message
  } catch (thrown) {
    return plain.format.failure(failCall(call, thrown), headers, request)
  }
}

/** The bytes of the answer's message, or the answer of the router to a body that is not plain. */
async function serve(
  request: Request,
  call: ServerCall,
  { format, reading, writing, handler, output }: Plain,
  { chain, maxMessageBytes, bodyTimeoutMs, askRouter }: PlainUnaryOptions,
): Promise<Uint8Array | UniversalServerResponse> {
  await chain.headers(call)
  call.throwIfEnded()
  const limits = { maxMessageBytes, bodyTimeoutMs }
  const body = await (format.isEnveloped ? readWhole(request, call, limits, 5) : readUnframed(request, call, limits))
  call.throwIfEnded()
  const message = messageIn(body, format, reading)
  if (message === undefined) return askRouter(request, call, body)
  call.request = message
  await chain.message(call)
  call.throwIfEnded()
  const answer = await Promise.resolve(invoke(handler, message, call))
  return writing.serialize(create(output, messageOf(answer)))
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
