import type { DescField, DescMethod, Message } from '@bufbuild/protobuf'
import { type Context, INVALID_SPAN_CONTEXT, ROOT_CONTEXT, type Span, trace } from '@opentelemetry/api'
import type { Call, EndListener } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { ClientCertificate } from '../identity/client-certificate.ts'
import { anonymous, type Principal } from '../identity/principal.ts'
import type { Waiting } from './shared-timeout.ts'

/**
 * The server's own side of a {@link Call}: what the middleware chain fills in while the call goes through it. Service
 * implementations see it as `Call` only.
 */
export class ServerCall implements Call {
  readonly id: string
  readonly rpc: Rpc
  readonly peerAddress: string
  /** The certificate that the client showed on its connection, verified; undefined: none. Read once a connection. */
  readonly clientCertificate: () => ClientCertificate | undefined
  readonly startedMs = performance.now()
  /** When the answer was handed over; what comes after is the caller's reading, and the rest of a refused body. */
  answeredMs: number | undefined
  principal: Principal = anonymous
  deadlineMs = Number.POSITIVE_INFINITY
  /** The timeout in force, in milliseconds, when it is the one that the caller named: its own clock runs on it too. */
  callerTimeoutMs: number | undefined
  span: Span = noSpan
  /** Context that holds the span; parents what the implementation starts. */
  traceContext: Context = ROOT_CONTEXT
  /** The latest request message; undefined until one was decoded. */
  request: Message | undefined
  /** What the caller was told went wrong; the first failure wins. */
  error: TollgateError | undefined
  /** Settles when the audit log has the denial that `error` is; undefined before it was told of one. */
  denial: Promise<void> | undefined
  /** Of the router's own part in the call: aborted with why it refused the call, if it did. */
  routerSignal: AbortSignal | undefined
  /** How many middlewares were entered; the chain's own. */
  entered = 0
  /** Of the deadline that calls have which name none. */
  deadline: Waiting<ServerCall> | undefined
  /** Of one that the call has by itself. */
  deadlineTimer: NodeJS.Timeout | undefined
  ended: TollgateError | undefined
  #responseHeaders: HeaderSink | undefined
  /** How much work of the implementation has not settled yet, even if the caller was answered. */
  #pending = 0
  #whenSettled: (() => void)[] = []
  #endListeners: EndListener[] = []
  #abort: AbortController | undefined
  readonly #headers: IncomingHeaders

  constructor(
    id: string,
    rpc: Rpc,
    headers: IncomingHeaders,
    peerAddress: string,
    clientCertificate: () => ClientCertificate | undefined = () => undefined,
  ) {
    this.id = id
    this.rpc = rpc
    this.#headers = headers
    this.peerAddress = peerAddress
    this.clientCertificate = clientCertificate
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.ended !== undefined) this.#abort.abort(this.ended)
    }
    return this.#abort.signal
  }

  onEnd(listener: EndListener): void {
    if (this.ended === undefined) this.#endListeners.push(listener)
    else listener(this.ended)
  }

  offEnd(listener: EndListener): void {
    const at = this.#endListeners.lastIndexOf(listener)
    if (at >= 0) this.#endListeners.splice(at, 1)
  }

  /** Throws why the call is over early, if it is. */
  throwIfEnded(): void {
    if (this.ended !== undefined) throw this.ended
  }

  get userAgent(): string {
    return this.header('user-agent') ?? ''
  }

  get headers(): IncomingHeaders {
    return this.#headers
  }

  header(name: string): string | undefined {
    const value = this.#headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  setResponseHeader(name: string, value: string): void {
    this.#responseHeaders?.set(name, value)
  }

  /** Gives the call the headers of its answer, once the wire made them. */
  answerWith(headers: HeaderSink): void {
    this.#responseHeaders = headers
  }

  /** Drops what is set from now on: the headers of the answer are on their way. */
  sealHeaders(): void {
    this.#responseHeaders = undefined
  }

  /** Ends the call: deadline, caller gone, end of the drain window or of its key. The first reason wins. */
  abort(reason: TollgateError): void {
    if (this.ended !== undefined) return
    this.ended = reason
    this.#abort?.abort(reason)
    const listeners = this.#endListeners
    this.#endListeners = []
    for (const listener of listeners) listener(reason)
  }

  /** Ends the call because its caller went away, by itself or because its own timer for the deadline ran out. */
  callerLeft(): void {
    const timeoutMs = this.callerTimeoutMs
    const lead = Math.min(callerLeadMs, (timeoutMs ?? 0) / 2)
    this.abort(
      timeoutMs !== undefined && this.deadlineMs - Date.now() <= lead ? deadlineExceeded(timeoutMs) : callerGone(),
    )
  }

  /**
   * Settles as `work` does, or rejects with why the call is over as soon as it is. `work` stays known as pending until it
   * settles; a failure that comes after the end goes to `late`. With `refused` it resolves with what that makes of a failure.
   */
  race<T>(work: Promise<T>, late: Late, refused?: (thrown: unknown) => T): Promise<T> {
    this.#pending++
    return new Promise((resolve, reject) => {
      const fail = (error: unknown): void => {
        this.offEnd(fail)
        if (refused === undefined) reject(error)
        else resolve(Promise.reject(error).catch(refused))
      }
      this.onEnd(fail)
      work.then(
        (value) => {
          this.offEnd(fail)
          resolve(value)
          this.#workSettled()
        },
        (error: unknown) => {
          if (this.ended === undefined) fail(error)
          else if (error !== this.ended) late(error, this)
          this.#workSettled()
        },
      )
    })
  }

  /** True when no work of the implementation is left. */
  get isSettled(): boolean {
    return this.#pending === 0
  }

  /** Resolves when no work of the implementation is left; never rejects. */
  async settled(): Promise<void> {
    while (this.#pending > 0) await new Promise<void>((resolve) => this.#whenSettled.push(resolve))
  }

  #workSettled(): void {
    this.#pending--
    if (this.#pending > 0) return
    if (this.#whenSettled.length > 0) for (const resolve of this.#whenSettled.splice(0)) resolve()
  }
}

/**
 * One RPC as registered, with everything that its descriptor says, read once at start, on one of its ways in; or an
 * operation of the OpenAI API.
 */
export interface Rpc {
  /** Undefined for the OpenAI API, whose bodies are no messages, and for what is no operation at all. */
  readonly method: DescMethod | undefined
  /** "<service>/<method>", or "POST /v1/chat/completions"; as in logs and spans. */
  readonly name: string
  /** HTTP method; "other" for whatever is sent where nothing is. */
  readonly verb: 'GET' | 'PUT' | 'POST' | 'DELETE' | 'PATCH' | 'other'
  /** As in metrics, with the names of variable parts in braces. */
  readonly path: string
  /** What metrics and spans count a failure as; the HTTP status of its answer where the wire has one. */
  readonly httpStatusOf: (error: TollgateError) => number
  /** HTTP status of a good answer where the wire has one; left out: 200. */
  readonly httpSuccess?: number
  /** Who may call: anyone, holders of a permission, or nobody because the contract does not say. */
  readonly access: 'public' | 'undeclared' | { readonly permission: string }
  /** Fields from the request down to the one that names the consumer acted for; empty without one. */
  readonly consumerPath: readonly DescField[]
  /** The same of the organization acted for. */
  readonly organizationPath: readonly DescField[]
  /** True for streams that live as long as their connection: without a timeout of the caller, none applies. */
  readonly longLived: boolean
}

/** Told of a failure that came after the end of its call. */
export type Late = (error: unknown, call: ServerCall) => void

/** Takes the headers of an answer: `AnswerHeaders`, or the router's `Headers`. */
export interface HeaderSink {
  set(name: string, value: string): unknown
}

/** Header names in lower case, as both of Node's HTTP servers hand them out. */
export type IncomingHeaders = Readonly<Record<string, string | string[] | undefined>> & {
  readonly 'content-type'?: string | undefined
  readonly origin?: string | undefined
}

/**
 * A caller's timer starts before the request leaves, ours when it arrives: the caller's reset at its deadline comes before
 * our timer by the time that the request took. A caller that leaves with no more than this left of the timeout that it
 * named, or half of a short one, has met its deadline; so the ledger says the same whichever timer was first.
 */
const callerLeadMs = 100

/** The reason of calls whose time was up. */
export function deadlineExceeded(timeoutMs: number): TollgateError {
  return new TollgateError('DEADLINE_EXCEEDED', `the call did not finish within ${timeoutMs} ms`, {
    metadata: { timeoutMs: String(timeoutMs) },
  })
}

/** The reason of calls whose caller went away. */
export function callerGone(): TollgateError {
  return new TollgateError('CANCELLED', 'the caller went away')
}

const noSpan = trace.wrapSpanContext(INVALID_SPAN_CONTEXT)
