import { createConnectRouter } from '@connectrpc/connect'
import { compressionGzip } from '@connectrpc/connect-node'
import { TollgateError } from '../errors.ts'
import { type AuthenticateOptions, authenticateCalls } from './authenticate.ts'
import { authorizeCalls, confineCalls, type OrganizationOf } from './authorize.ts'
import { createCors } from './cors.ts'
import { limitDeadlines } from './deadline.ts'
import { type Denials, tellDenials } from './denials.ts'
import { createDispatcher } from './dispatch.ts'
import { createHealth } from './health.ts'
import { createHttpApi } from './http/http-api.ts'
import { type ListenerOptions, listen } from './listener.ts'
import { createChain } from './middleware.ts'
import { type CallObserver, observeCalls } from './observe.ts'
import { createOpenAiApi, type OpenAiOptions } from './openai/openai-api.ts'
import { createPages, type Pages } from './pages.ts'
import { createPeerAddress, type TrustedProxies } from './peer-address.ts'
import { compressMinBytes } from './plain-formats.ts'
import { createPlainRpcs } from './plain-rpcs.ts'
import { slowBodies } from './read-whole.ts'
import { createReflection } from './reflection.ts'
import { createRouterTargets } from './router-target.ts'
import { bind, describeRpcs, gate, type ServiceRegistration } from './rpc.ts'
import type { ServerCall } from './server-call.ts'
import { traceCalls } from './trace.ts'
import { validateMessages } from './validate.ts'

export interface ServerOptions extends Omit<ListenerOptions, 'ageGraceMs'>, AuthenticateOptions {
  /** Made by `register` of rpc.ts. Health and reflection come on top. */
  readonly services: readonly ServiceRegistration[]
  /** What the OpenAI API calls. */
  readonly openai: OpenAiOptions
  /** Plain GET pages by path, such as "/metrics". */
  readonly pages: Pages
  readonly organizationOf: OrganizationOf
  /** Told of every call that is denied, before its answer leaves. */
  readonly denials: Denials
  /** Proxies whose X-Forwarded-For is believed. Default none. */
  readonly trustedProxies?: TrustedProxies
  /** Origins whose scripts may call, "https://host[:port]" each. */
  readonly corsOrigins: readonly string[]
  /** Largest request message, before and after decompression. */
  readonly maxMessageBytes: number
  /** Deadline of calls whose caller names none. */
  readonly defaultDeadlineMs: number
  /** Longer timeouts of callers are shortened to this one. */
  readonly maxDeadlineMs: number
  /** Longest time that {@link RunningServer.close} takes. */
  readonly drainMs: number
  readonly observer: CallObserver
  /** UUIDv7, for calls. */
  readonly newId: () => string
}

export interface RunningServer {
  /** "http://host:port", or "https://host:port". */
  readonly address: string
  readonly host: string
  readonly port: number
  /** Calls that are not over; those whose implementation works on after its caller was answered count. */
  readonly activeCalls: () => number
  /** What the health service says. A load balancer should see `false` for a while before {@link close}. */
  setServing(serving: boolean): void
  /**
   * Says NOT_SERVING, accepts nothing new, and resolves when the last call is over, however long that takes; calls that
   * live as long as their callers are told to go elsewhere. {@link close} may come before that. Idempotent.
   */
  retire(): Promise<void>
  /**
   * Says NOT_SERVING, accepts nothing new, lets calls finish, aborts those that are left with SHUTTING_DOWN shortly
   * before `drainMs` is over, and then cuts what is left. Never rejects; idempotent.
   */
  close(): Promise<void>
}

/**
 * Serves gRPC, gRPC-Web and Connect (JSON and binary) over HTTP/2 and HTTP/1.1 on one port, in clear or over TLS, with
 * health and reflection, the OpenAI API, and what RPCs declare as their HTTP bindings. Resolves when it listens; rejects
 * when the port is taken or a contract is wrong.
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { log, drainMs } = options
  const descriptors = options.services.map((registration) => registration.service)
  const health = createHealth(descriptors)
  const reflection = createReflection([...descriptors, health.registration.service])
  const registrations = [...options.services, health.registration, ...reflection]
  const rpcs = describeRpcs(registrations)
  const chain = createChain([
    traceCalls(),
    observeCalls(options.observer, log),
    limitDeadlines({ ...options, longLivedMs: 2 * options.maxConnectionAgeMs + options.maxDeadlineMs }),
    authenticateCalls(options),
    authorizeCalls(),
    confineCalls(options.organizationOf),
    validateMessages(new Set(registrations.flatMap(({ service }) => service.methods.map(({ input }) => input)))),
  ])
  const writeMaxBytes = Math.max(answerMaxBytes, options.maxMessageBytes)
  const router = createConnectRouter({
    acceptCompression: [compressionGzip],
    compressMinBytes,
    readMaxBytes: options.maxMessageBytes,
    writeMaxBytes,
    // A misspelled field would be dropped otherwise, and a price without its rates would be 0.
    jsonOptions: { ignoreUnknownFields: false },
    requestGate: gate(chain, options.maxMessageBytes),
  })
  for (const registration of registrations) bind(router, registration, chain, log)
  const limits = { maxMessageBytes: options.maxMessageBytes, slowBodies: slowBodies(options.bodyTimeoutMs) }
  const openai = createOpenAiApi({ ...limits, ...options.openai, chain, log })
  const pagePaths = Object.keys(options.pages).map((path) => ({ verb: 'GET', path }))
  const httpApi = createHttpApi({ ...limits, registrations, rpcs, chain, log, taken: [...openai.routes, ...pagePaths] })
  const routed = createRouterTargets({ ...options, router, rpcs })
  const plain = createPlainRpcs({ ...limits, registrations, rpcs, chain, log, writeMaxBytes, askRouter: routed.ask })
  const dispatcher = createDispatcher({
    ...options,
    peerAddressOf: createPeerAddress(options.trustedProxies ?? []),
    rpcs: [plain, routed.find],
    chain,
    // Below /v1/, what is neither OpenAI's nor declared by an RPC gets OpenAI's 404.
    operations: (request) => openai.find(request) ?? httpApi(request) ?? openai.refuse(request),
    cors: createCors(options.corsOrigins),
    failed: tellDenials(options.denials, options.organizationOf),
    pages: createPages(options.pages, log),
  })
  const listener = await listen({ ...options, ageGraceMs: options.maxDeadlineMs + drainMs }, dispatcher.handle)

  const leave = new TollgateError('SHUTTING_DOWN', 'the server is shutting down', { retryAfterMs: 1000 })
  const abort = (which: (call: ServerCall) => boolean): void => {
    for (const call of dispatcher.calls.values()) if (which(call)) call.abort(leave)
  }

  /** Resolves when no request is left and none can come. */
  async function turnAway(idleConnectionsMs: number): Promise<void> {
    health.setServing(false)
    listener.drain()
    // Callers hear with their next answer that a kept connection ends: closed at once, what is on its way would be lost.
    await withinMs(listener.closed, idleConnectionsMs)
    listener.closeIdle()
    await dispatcher.idle()
  }

  async function retire(): Promise<void> {
    // Watchers get the moment that it takes to hear NOT_SERVING.
    const leavingStreams = setTimeout(abort, watchersMs, (call: ServerCall) => call.rpc.longLived)
    await turnAway(retireIdleMs)
    clearTimeout(leavingStreams)
  }

  async function shutDown(): Promise<void> {
    // The last part of the window belongs to the aborted calls: to settle, and to say so to their callers.
    const abortAfterMs = drainMs - Math.min(drainMs / 2, 2000)
    const leavingStreams = setTimeout(
      abort,
      Math.min(drainMs / 4, watchersMs),
      (call: ServerCall) => call.rpc.longLived,
    )
    const aborting = setTimeout(abort, abortAfterMs, () => true)
    const idle = turnAway(closeIdleMs).then(() => withinMs(listener.closed, lastBytesMs))
    await withinMs(idle, drainMs)
    clearTimeout(leavingStreams)
    clearTimeout(aborting)
    listener.destroy()
    await withinMs(listener.closed, lastBytesMs)
  }

  let retiring: Promise<void> | undefined
  let closing: Promise<void> | undefined
  const host = listener.host.includes(':') ? `[${listener.host}]` : listener.host
  return {
    address: `${options.tls === undefined ? 'http' : 'https'}://${host}:${listener.port}`,
    host: listener.host,
    port: listener.port,
    activeCalls: () => dispatcher.calls.size,
    setServing: (serving) => health.setServing(serving),
    retire: () => {
      retiring ??= retire()
      return retiring
    },
    close: () => {
      closing ??= shutDown()
      return closing
    },
  }
}

/** Answers may be larger than requests: a backend's answer was paid for when it gets here, whatever its size. */
const answerMaxBytes = 64 * 1024 * 1024

/** How long calls that watch may go on when the server leaves. */
const watchersMs = 250

/** How long a kept HTTP/1.1 connection may wait for its next request when the server leaves, and when it retires. */
const closeIdleMs = 250
const retireIdleMs = 2_000

/** How long connections may take to close after their last answer. */
const lastBytesMs = 500

async function withinMs(work: Promise<void>, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await Promise.race([work, promise])
  clearTimeout(timer)
}
