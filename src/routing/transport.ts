import type { IncomingHttpHeaders } from 'node:http'

/** Where calls to one origin go out. */
export interface Transport {
  /** Begins a request; everything else is told to the handler. */
  dispatch(request: TransportRequest, handler: TransportHandler): void
  /** Whether calls wait because each connection that may be is in use. */
  readonly isFull: boolean
  /** Takes no more calls, and waits for those that run. */
  close(): Promise<void>
}

export interface TransportRequest {
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
  /** Interim answers (1xx) are passed over. */
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
