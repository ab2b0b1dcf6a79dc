import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  Message,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf'
import { type ConnectRouter, createContextKey, type HandlerContext } from '@connectrpc/connect'
import type { Logger } from 'pino'
import type { Call, StreamHandler, UnaryHandler } from '../call.ts'
import { type Reason, reasons, TollgateError } from '../errors.ts'
import { declaredAccess, declaredPaths } from './authorize.ts'
import { failCall, messageTooLarge, toConnectError } from './connect-error.ts'
import type { Chain } from './middleware.ts'
import { isEnveloped } from './request-body.ts'
import type { Late, Rpc, ServerCall } from './server-call.ts'
import { inTrace } from './trace.ts'

/**
 * Implementations of a service's RPCs by local name. Missing ones answer RPC_NOT_FOUND. A `Handlers` of
 * src/call.ts is one.
 */
export type ServiceImplementation<S extends DescService> = {
  readonly [K in keyof S['method']]?: Handler<S['method'][K]>
}

type Handler<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? UnaryHandler<I, O>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? StreamHandler<I, O>
      : M extends DescMethodBiDiStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageShape<I>>, call: Call) => AsyncIterable<MessageInitShape<O>>
        : never

export interface RegisterOptions {
  /** Callable without a credential, whatever the protos say; for services of others, such as health. Default false. */
  readonly public?: boolean
  /**
   * Its streams live as long as their connection, and are cut at once at shutdown; or only those of the RPCs with these
   * local names. Default false.
   */
  readonly longLived?: boolean | readonly string[]
  /** HTTP statuses that the service promises to its callers, where they differ from those of src/errors.ts. Default none. */
  readonly httpStatuses?: Partial<Record<Reason, number>>
  /** Local names of unary RPCs whose answers have the HTTP status 201 instead of 200. Default none. */
  readonly created?: readonly string[]
}

/** A service with its implementation; made by {@link register}. */
export interface ServiceRegistration {
  readonly service: DescService
  readonly options: RegisterOptions
  /** Implementation of the RPC with this local name. */
  readonly implementation: (localName: string) => unknown
}

export function register<S extends DescService>(
  service: S,
  implementation: ServiceImplementation<S>,
  options: RegisterOptions = {},
): ServiceRegistration {
  return {
    service,
    options,
    implementation: (localName) => {
      const handler: unknown = Reflect.get(implementation, localName)
      return typeof handler === 'function' ? handler.bind(implementation) : undefined
    },
  }
}

/**
 * The RPCs of the registrations by path, with what their descriptors say. Throws when a service is registered twice, or a
 * `consumer_field` or `organization_field` names no field.
 */
export function describeRpcs(registrations: readonly ServiceRegistration[]): Map<string, Rpc> {
  const rpcs = new Map<string, Rpc>()
  for (const { service, options } of registrations) {
    for (const method of service.methods) {
      const name = `${service.typeName}/${method.name}`
      if (rpcs.has(`/${name}`)) throw new Error(`${service} is registered twice`)
      rpcs.set(`/${name}`, {
        method,
        name,
        verb: 'POST',
        path: `/${name}`,
        httpStatusOf: ({ reason }) => options.httpStatuses?.[reason] ?? reasons[reason].http,
        httpSuccess: options.created?.includes(method.localName) === true ? 201 : 200,
        access: options.public === true ? 'public' : declaredAccess(method),
        ...declaredPaths(method),
        longLived: isLongLived(options, method),
      })
    }
  }
  return rpcs
}

function isLongLived({ longLived = false }: RegisterOptions, { localName }: DescMethod): boolean {
  return typeof longLived === 'boolean' ? longLived : longLived.includes(localName)
}

/** The call that a request belongs to; set by whoever hands the request to the router. */
export const callKey = createContextKey<ServerCall | undefined>(undefined, { description: 'the call' })

/**
 * Runs the headers phase; the router calls it before it reads the body. A body that is one message and announces a length
 * beyond the limit is refused here too: the router would refuse it in words of its own, without details. A call that has
 * failed already is answered so at once.
 */
export function gate(chain: Chain, maxMessageBytes: number): (context: HandlerContext) => Promise<void> {
  return async (context) => {
    const call = callOf(context)
    call.answerWith(context.responseHeader)
    call.setResponseHeader('x-request-id', call.id)
    call.routerSignal = context.signal
    if (call.error !== undefined) throw toConnectError(call.error)
    // The plain way passed it already, and found a body that is none of its own.
    if (call.entered > 0) return
    try {
      const entering = chain.headers(call)
      if (entering !== undefined) await call.race(entering, ignore)
      const announced = isEnveloped(call.header('content-type')) ? 0 : Number(call.header('content-length') ?? 0)
      if (announced > maxMessageBytes) throw messageTooLarge(maxMessageBytes, announced)
    } catch (error) {
      throw failCall(call, error)
    }
  }
}

/** Puts every RPC of a registration on the router, behind the message phase of the chain and the call's signal. */
export function bind(router: ConnectRouter, registration: ServiceRegistration, chain: Chain, log: Logger): void {
  const late = lateTo(log)
  for (const method of registration.service.methods) {
    const handler = registration.implementation(method.localName)
    if (isKind(method, 'unary')) {
      router.rpc(method, (request, context) => answerOnce(handler, request, callOf(context), chain, late))
    } else if (isKind(method, 'server_streaming')) {
      router.rpc(method, (request, context) => answerInParts(handler, request, callOf(context), chain, late))
    } else if (isKind(method, 'bidi_streaming')) {
      router.rpc(method, (requests, context) => {
        const call = callOf(context)
        return answerMany(async () => invoke(handler, admitted(requests, call, chain), call), call, late)
      })
    } else {
      throw new Error(`${method} streams from the client only, which no service here does`)
    }
  }
}

function isKind<K extends keyof MethodOfKind>(method: DescMethod, kind: K): method is MethodOfKind[K] {
  return method.methodKind === kind
}

interface MethodOfKind {
  readonly unary: DescMethodUnary
  readonly server_streaming: DescMethodServerStreaming
  readonly bidi_streaming: DescMethodBiDiStreaming
}

/**
 * The answer of a unary RPC's implementation, behind the message phase of the chain and the call's signal. Rejects with
 * what {@link failCall} makes of a failure, whose reason is in `call.error`.
 */
export async function answerOnce(
  handler: unknown,
  request: Message,
  call: ServerCall,
  chain: Chain,
  late: Late,
): Promise<MessageInitShape<DescMessage>> {
  try {
    await admitMessage(call, request, chain)
    return messageOf(await call.race(Promise.resolve(invoke(handler, request, call)), late))
  } catch (error) {
    throw failCall(call, error)
  }
}

/** As {@link answerOnce}, of an RPC that answers with a stream. */
export function answerInParts(
  handler: unknown,
  request: Message,
  call: ServerCall,
  chain: Chain,
  late: Late,
): AsyncIterable<MessageInitShape<DescMessage>> {
  const start = async (): Promise<unknown> => {
    await admitMessage(call, request, chain)
    return invoke(handler, request, call)
  }
  return answerMany(start, call, late)
}

async function* answerMany(
  start: () => Promise<unknown>,
  call: ServerCall,
  late: Late,
): AsyncIterable<MessageInitShape<DescMessage>> {
  let answers: AsyncIterator<unknown> | undefined
  try {
    answers = iteratorOf(await call.race(start(), late))
    for (;;) {
      const next = await call.race(answers.next(), late)
      if (next.done === true) return
      yield* messagesOf(next.value)
    }
  } catch (error) {
    throw failCall(call, error)
  } finally {
    // Not awaited: an implementation that ignores the signal must not hold the answer. The call stays pending.
    const ended = answers?.return?.()
    if (ended !== undefined) call.race(ended, late).catch(ignore)
  }
}

async function* admitted(requests: AsyncIterable<Message>, call: ServerCall, chain: Chain): AsyncIterable<Message> {
  for await (const request of requests) {
    await admitMessage(call, request, chain)
    yield request
  }
}

async function admitMessage(call: ServerCall, request: Message, chain: Chain): Promise<void> {
  call.request = request
  await chain.message(call)
}

/** Runs an implementation in the trace of its call; one that is not there refuses with RPC_NOT_FOUND. */
export function invoke(handler: unknown, input: unknown, call: ServerCall): unknown {
  if (typeof handler !== 'function') {
    throw new TollgateError('RPC_NOT_FOUND', `${call.rpc.name} is not implemented`, {
      metadata: { rpc: call.rpc.name },
    })
  }
  return inTrace<unknown>(call, () => handler(input, call))
}

/** Where failures go that come after the caller was answered. */
export function lateTo(log: Logger): Late {
  return (err, call) =>
    log.debug({ requestId: call.id, rpc: call.rpc.name, err }, 'failed after its caller was answered')
}

function callOf({ values }: HandlerContext): ServerCall {
  const call = values.get(callKey)
  if (call === undefined) throw new Error('a request reached the router without its call')
  return call
}

// The types of `register` guarantee the shapes below; they are lost where implementations are looked up by name.

/** What an implementation answered, as what a message is made from. */
export function messageOf(value: unknown): MessageInitShape<DescMessage> {
  if (!isMessageInit(value)) throw new Error('an implementation answered no message')
  return value
}

/** What an implementation answered as a part of a stream. */
export function messagesOf(part: unknown): readonly MessageInitShape<DescMessage>[] {
  return Array.isArray(part) ? part.map(messageOf) : [messageOf(part)]
}

function isMessageInit(value: unknown): value is MessageInitShape<DescMessage> {
  return typeof value === 'object' && value !== null
}

/** What an implementation of a stream answered. */
export function iteratorOf(value: unknown): AsyncIterator<unknown> {
  if (!isAsyncIterable(value)) throw new Error('an implementation answered no stream')
  return value[Symbol.asyncIterator]()
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

function ignore(): void {}
