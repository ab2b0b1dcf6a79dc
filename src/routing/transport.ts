import type { IncomingHttpHeaders } from 'node:http'

/** Where calls to backends go out; undici's dispatchers are of this kind. */
export interface Transport {
  /** Begins a request; everything else is told to the handler. */
  dispatch(request: TransportRequest, handler: TransportHandler): unknown
}

export interface TransportRequest {
  readonly origin: string
  readonly path: string
  readonly method: 'POST'
  /** Lower-case names. */
  readonly headers: Record<string, string>
  readonly body: Uint8Array
}

/** Told of one request: its start, then an answer, which ends or fails. */
export interface TransportHandler {
  /** There is a connection, and the request goes out; once more when it proved unprocessed and goes out again. */
  onRequestStart(controller: TransportController): void
  onResponseStart(controller: TransportController, status: number, headers: IncomingHttpHeaders): void
  onResponseData(controller: TransportController, chunk: Buffer): void
  onResponseEnd(controller: TransportController, trailers: IncomingHttpHeaders): void
  /** The controller is null when there was no connection. */
  onResponseError(controller: TransportController | null, error: Error): void
}

export interface TransportController {
  abort(reason: Error): void
  pause(): void
  resume(): void
}
