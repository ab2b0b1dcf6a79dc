import type { Readable } from 'node:stream'
import type { AnswerHeaders } from './answer-headers.ts'
import type { IncomingHeaders } from './server-call.ts'

/**
 * A request and the way to answer it, the same for both versions of HTTP. An answer is `head`, any number of `write`, and
 * `end`; nothing is sent before the second of them, so that an answer that is there as a whole leaves as one piece.
 */
export interface Exchange {
  readonly httpVersion: string
  readonly isHttp2: boolean
  readonly method: string
  /** As the caller sent it. */
  readonly url: string
  /** Of {@link url}, without its query. */
  readonly path: string
  readonly headers: IncomingHeaders
  /** Bytes of the request's body. */
  readonly body: Readable
  /** All of the body, where it is there already, or there is none; undefined when it has to be waited for. */
  takeBody(): Uint8Array | undefined
  /** True when the body came to its end and was read, or will never come. */
  readonly isBodyOver: boolean
  /** The same object for every request of a connection. */
  readonly connection: object
  /** Of the connection: a TLSSocket, where there is TLS. */
  readonly socket: { readonly remoteAddress?: string | undefined }
  /** True when nothing that is written reaches the caller any more. */
  readonly isGone: boolean
  /** True when more was written than the caller has read for now. */
  readonly isFull: boolean
  /** Told when the connection or stream closes before {@link end}. At most one. */
  onLeft(listener: () => void): void
  /** Sets a header of the answer, whatever that will be. */
  setHeader(name: string, value: string): void
  /** Status and headers of the answer; `hasTrailers` when {@link end} will come with some. */
  head(status: number, headers: AnswerHeaders, hasTrailers: boolean): void
  /** Hands over a part of the body. */
  write(bytes: Uint8Array): void
  /** Resolves when {@link isFull} is worth another look. */
  drained(): Promise<void>
  /** Hands over the last part, which may be empty, and the trailers. */
  end(bytes: Uint8Array, trailers?: Trailers): void
  /**
   * Resolves when the answer left after {@link end}, or the caller is gone; undefined when that is so. A request body that was
   * not read is thrown away first, see early-answer.ts.
   */
  left(): Promise<void> | undefined
  /** Cuts the stream or connection. */
  cut(): void
}

export type Trailers = Readonly<Record<string, string>>

/** The path of a request's URL. */
export function pathOf(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}

export const noBytes: Uint8Array = new Uint8Array(0)
