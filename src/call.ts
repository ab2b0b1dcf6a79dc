import type {
  DescMessage,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf'
import type { Span } from '@opentelemetry/api'
import type { TollgateError } from './errors.ts'
import type { Principal } from './identity/principal.ts'

/** What a service implementation may know of the call that it serves. It never learns which wire carried it. */
export interface Call {
  /** UUIDv7, made by the gate; the answer, the logs and the usage record carry it. */
  readonly id: string
  /** Who calls; anonymous until the authentication middleware ran. */
  readonly principal: Principal
  /** Unix milliseconds at which the caller stops waiting. Always set: the default deadline applies without one. */
  readonly deadlineMs: number
  /** Why the call is over early: its deadline, its caller gone, the end of the drain window. Undefined while it lives. */
  readonly ended: TollgateError | undefined
  /** Tells `listener` once when the call ends early, or at once when it has; it must not throw. */
  onEnd(listener: EndListener): void
  /** Forgets one `listener` of {@link Call.onEnd}. */
  offEnd(listener: EndListener): void
  /**
   * Aborted with `ended` when that comes. Made at its first use: for timers and the like that take a signal. `ended` and
   * `onEnd` cost a fraction of it.
   */
  readonly signal: AbortSignal
  /** Ends the call as its deadline would, for a reason that its caller is told. The first reason wins. */
  abort(reason: TollgateError): void
  /** Address of the peer, without port. */
  readonly peerAddress: string
  readonly userAgent: string
  /** Span of the call; a non-recording one when tracing is off. */
  readonly span: Span
  /** A request header, lower case; undefined when absent. */
  header(name: string): string | undefined
  /** Sets a response header, lower case; must happen before the first response message. */
  setResponseHeader(name: string, value: string): void
}

/** Told why a call is over early. */
export type EndListener = (reason: TollgateError) => void

/** Implementation of one unary RPC. */
export type UnaryHandler<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  call: Call,
) => Promise<MessageInitShape<O>>

/** Implementation of one RPC that answers with a stream. What its iterator holds is given up by `return`. */
export type StreamHandler<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  call: Call,
) => AsyncIterable<StreamPart<O>>

/** A message of a stream, or a list of those that are there together: they leave together where the wire can. */
export type StreamPart<O extends DescMessage> = MessageInitShape<O> | readonly MessageInitShape<O>[]

/** Implementations of the RPCs of a service, by local name; missing ones answer RPC_NOT_FOUND. */
export type Handlers<M extends Record<string, unknown>> = {
  readonly [K in keyof M]?: M[K] extends DescMethodUnary<infer I, infer O>
    ? UnaryHandler<I, O>
    : M[K] extends DescMethodServerStreaming<infer I, infer O>
      ? StreamHandler<I, O>
      : never
}
