/**
 * A provider is one protocol that backends speak. Everything here is a function of bytes: what a request asks for, what is
 * sent to the backend, what an answer or a stream used and whether it can be believed. Connections, retries, prices and
 * the caller's wire belong to others.
 *
 * - A caller's **dialect** is either the service's own protocol (`native`), which passes as bytes, or that of the OpenAI
 *   API, which is translated where the service speaks another one.
 * - A **piece** is what of a stream can be handed to the caller at once: whole events, in the caller's dialect.
 * - The **verdict** says whether a stream may be called a success. Only `complete` may.
 */
import type { TollgateError } from '../errors.ts'
import type { TokenParts, UsageSource } from '../metering/usage-event.ts'
import type { Framing } from './event-stream.ts'
import type { Skimmed } from './skim.ts'
import type { AuthForm } from './target.ts'

export type Protocol = 'openai' | 'azure_openai' | 'anthropic' | 'gemini' | 'ollama' | 'json' | 'grpc'
export type Dialect = 'native' | 'openai'
export type Mode = 'unary' | 'stream'
export type RequestKind = 'chat' | 'completion' | 'embedding' | 'responses' | 'generic'

/** What the caller sent. */
export interface CallerRequest {
  readonly payload: Uint8Array
  /** What was parsed of the payload before; default it is parsed when it is read. */
  readonly parsed?: Skimmed | undefined
  /** Whether the caller gets one whole answer or a stream. */
  readonly mode: Mode
  readonly dialect: Dialect
  /** What the caller's path says; without it, the body's fields decide. */
  readonly kind?: RequestKind | undefined
  /** Unix milliseconds of the call; the creation time of translated answers. */
  readonly startMs: number
}

/** A request that was read, with the body for the backend. */
export interface ReadRequest {
  readonly kind: RequestKind
  readonly mode: Mode
  readonly dialect: Dialect
  /** Model that it names, at most 128 characters; empty when it names none. */
  readonly model: string
  /** Most output tokens that it allows, over all its choices; undefined when it sets no limit, 0 when there is no output. */
  readonly maxOutputTokens: number | undefined
  /** Alternatives that it asks for; 1 when it does not say. */
  readonly choices: number
  /** Whether the body itself asks for a stream, and for usage in it. */
  readonly asksStream: boolean
  readonly asksUsage: boolean
  /** Bytes of the caller's payload, for estimates. */
  readonly payloadBytes: number
  readonly startMs: number
  /** For the backend, in its protocol: the payload's own bytes object where nothing had to be changed. */
  readonly body: Uint8Array
}

/** Where a request goes. */
export interface BackendTarget {
  /** As registered: a base, one operation's address, or any other address, by the rules of `operationUrl`. */
  readonly url: string
  /** Model to ask for in place of the caller's, whose name may be that of the service; empty leaves the caller's. */
  readonly model: string
  /** Goes into one header and nowhere else; undefined for none. */
  readonly credential: string | undefined
  /** How the credential is shown; undefined for the protocol's own way. */
  readonly auth?: AuthForm | undefined
}

/** A POST to a backend. */
export interface BackendRequest {
  readonly url: string
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
  /** Over HTTP/2, and how it ended stands in the trailers. Default false. */
  readonly isGrpc?: boolean
}

/** A whole answer that can be believed. */
export interface Answer {
  readonly tokens: TokenParts
  /** `provider`, or `estimated` when the backend reported nothing. */
  readonly usageSource: UsageSource
  /** Model named by the answer; empty when it names none. */
  readonly model: string
  /** In the OpenAI API's words where it has one, else the backend's own; empty when the answer has none. */
  readonly finishReason: string
  /** For the caller, in its dialect: the answer's own bytes object where nothing had to be changed. */
  readonly body: Uint8Array
}

export interface Provider {
  readonly protocol: Protocol
  /** Of its streams; undefined when it has none. */
  readonly framing: Framing | undefined
  /**
   * Reads, checks and, where the caller's dialect is not the backend's, translates a request. Throws INVALID_ARGUMENT
   * naming the field for what cannot be: nothing that a caller asks for is dropped in silence.
   */
  readRequest(request: CallerRequest): ReadRequest
  /** The request for one backend; throws INVALID_ARGUMENT when it lacks what the address needs (a model). */
  prepare(request: ReadRequest, target: BackendTarget): BackendRequest
  /**
   * Reads a whole answer of status 2xx. Throws BACKEND_ANSWER_INVALID when it is empty, no JSON, or cannot be true, and
   * what `backendError` makes of an error object.
   */
  readAnswer(answer: Uint8Array, request: ReadRequest): Answer
  /** Begins to read a stream; throws INTERNAL for a provider without streams. */
  openStream(request: ReadRequest): StreamReader
}

/**
 * Reads a backend's stream as it arrives, whatever the chunks are. It holds the bytes of one unfinished event and some
 * counters, and nothing of what was delivered.
 */
export interface StreamReader {
  /**
   * The events that a chunk completed, in order. A failure is the last one, and after it there are none. Pieces, and what
   * is held back of an unfinished event, share memory with the chunk, which must not be changed afterwards.
   */
  push(chunk: Uint8Array): readonly StreamEvent[]
  /**
   * The body ended cleanly, or {@link StreamReader.isOver}. Not to be called for a connection that broke: that is a cut,
   * and only {@link StreamReader.report} is of use then.
   */
  end(): StreamEnd
  /** What is known now; of an unfinished stream, what a caller that leaves now has used. */
  report(): StreamReport
  /** The backend's own end marker has come: the rest of the body need not be waited for. */
  readonly isOver: boolean
}

export type StreamEvent = StreamPiece | StreamFailure

export interface StreamPiece {
  readonly kind: 'piece'
  /** Whole events with their framing, mostly one, for example `data: {…}\n\n`; `visitData` takes the framing off. */
  readonly bytes: Uint8Array
  /** Carries output of the model. Until the first such piece was handed on, another attempt stays invisible. */
  readonly hasOutput: boolean
}

export interface StreamFailure {
  readonly kind: 'failure'
  readonly verdict: 'malformed' | 'error'
  readonly error: TollgateError
}

/**
 * - `complete`: finished as its protocol says. `tail` is the end for the caller (its last events and end marker): what
 *   makes the answer a success in the caller's eyes, to be sent when the call is settled.
 * - `cut`: ended without its finish reason, even when the end marker came.
 * - `malformed`: holds what cannot be read. `error`: an error object came.
 */
export type StreamEnd =
  | { readonly verdict: 'complete'; readonly tail: Uint8Array }
  | { readonly verdict: 'cut' | 'malformed' | 'error'; readonly error: TollgateError }

export interface StreamReport {
  readonly tokens: TokenParts
  /** `provider` or `estimated` when complete; else `partial`, or `none` when nothing was delivered or reported. */
  readonly usageSource: UsageSource
  readonly model: string
  /** As in {@link Answer}; of several choices that of the last one that finished. */
  readonly finishReason: string
  /** UTF-8 bytes of text and tool calls that were delivered, and of reasoning. */
  readonly textBytes: number
  readonly reasoningBytes: number
}
