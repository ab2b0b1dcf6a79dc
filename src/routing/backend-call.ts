import type { IncomingHttpHeaders } from 'node:http'
import type { TollgateError } from '../errors.ts'
import { cutStream, invalidAnswer } from '../providers/failures.ts'
import {
  answerTooLarge,
  asTollgateError,
  connectionFailed,
  noFreeConnection,
  statusFailed,
  timedOut,
} from './backend-errors.ts'
import { type Deadline, DeadlineTimer } from './deadline-timer.ts'
import type { Ending } from './disconnect.ts'
import { grpcError } from './grpc-status.ts'
import type { Transport, TransportController, TransportHandler, TransportRequest } from './transport.ts'

/** One POST to a backend. */
export interface BackendPost {
  readonly transport: Transport
  readonly request: TransportRequest
  /** How an answer ended stands in its trailers. */
  readonly isGrpc: boolean
  readonly deadlines: Deadlines
  /** Ends the call, which then fails with its reason. */
  readonly ending: Ending
  /** Unix milliseconds. */
  readonly now: () => number
  readonly sink: BodySink
}

/** Where the body of an answer of status 2xx goes. */
export interface BodySink {
  /** Longest answer that is accepted; undefined for a stream, whose reader counts. */
  readonly maxBytes: number | undefined
  /** Told of each piece of the body, in order; a throw ends the call with that error. */
  onData(chunk: Buffer, call: BackendCall): void
}

/** In milliseconds; undefined for none. */
export interface Deadlines {
  /** Kept by the transport; here for the error's text. */
  readonly connect: number
  readonly headers: number | undefined
  readonly firstToken: number | undefined
  readonly idle: number | undefined
  readonly total: number | undefined
}

/** An error answer is read for its codes, so far and so long. */
const maxErrorBytes = 65_536
const errorBodyMs = 1_000

/**
 * The handler of one request: keeps its deadlines, knows how far it came, and turns every way to fail into a
 * {@link TollgateError} whose `failure` says whether bytes of it may have been accepted. No redirect is followed.
 */
export class BackendCall implements TransportHandler {
  /** Resolves at the clean end of an answer of status 2xx. */
  readonly done: Promise<void>
  /** 0 before the headers of an answer. */
  status = 0
  receivedBytes = 0
  /** Unix milliseconds of the answer's headers. */
  headersAtMs: number | undefined
  readonly #post: BackendPost
  readonly #ending = Promise.withResolvers<void>()
  #controller: TransportController | undefined
  #isOver = false
  #isPaused = false
  /** Of a gRPC answer: those of one without a body are its trailers. */
  #headers: IncomingHttpHeaders = {}
  #retryAfter: string | readonly string[] | undefined
  #errorBody: Buffer[] = []
  #phase: Phase = 'headers'
  /** Most endpoints set no deadlines. */
  #timer: DeadlineTimer | undefined

  constructor(post: BackendPost) {
    this.#post = post
    this.done = this.#ending.promise
    const { transport, request, deadlines, ending } = post
    if (ending.ended !== undefined) {
      this.fail(ending.ended)
      return
    }
    ending.onEnd(this.#onCallEnd)
    this.#start('total', deadlines.total)
    transport.dispatch(request, this)
  }

  /** Ends the call with an error, unless it is over: the connection is closed. */
  fail(error: TollgateError): void {
    if (!this.#end()) return
    this.#ending.reject(error)
    this.#controller?.abort(error)
  }

  /** The first output came: from here on only silence and the whole are bounded. */
  sawOutput(): void {
    this.#timer?.stop('first_token')
  }

  /** All that is wanted has come: the connection has so long to come to its end, whatever still comes on it. */
  endWithin(ms: number): void {
    this.resume()
    this.#begin('rest', ms)
  }

  /** Asks the backend to wait. The silence that follows is not its own, nor is the time: its deadlines stand still. */
  pause(): void {
    if (this.#isOver || this.#isPaused) return
    this.#isPaused = true
    this.#timer?.stop('phase')
    this.#timer?.pause()
    this.#controller?.pause()
  }

  resume(): void {
    if (this.#isOver || !this.#isPaused) return
    this.#isPaused = false
    this.#timer?.resume()
    this.#begin('idle', this.#post.deadlines.idle)
    this.#controller?.resume()
  }

  onRequestStart(controller: TransportController): void {
    this.#controller = controller
    if (this.#isOver) {
      // It waited for a connection until its call ended.
      controller.abort(abandoned)
      return
    }
    // A request that HTTP/2 proved unprocessed begins again, on another connection.
    const { headers, firstToken } = this.#post.deadlines
    this.#begin('headers', headers)
    this.#start('first_token', firstToken)
  }

  onResponseStart(_controller: TransportController, status: number, headers: IncomingHttpHeaders): void {
    if (this.#isOver) return
    this.status = status
    this.headersAtMs = this.#post.now()
    if (isSuccess(status)) {
      if (this.#post.isGrpc && !isGrpcType(headers)) {
        this.fail(invalidAnswer('is no gRPC'))
        return
      }
      this.#headers = headers
      this.#begin('idle', this.#post.deadlines.idle)
      return
    }
    this.#retryAfter = headers['retry-after']
    this.#begin('error_body', errorBodyMs)
  }

  onResponseData(_controller: TransportController, chunk: Buffer): void {
    if (this.#isOver) return
    this.receivedBytes += chunk.length
    if (!isSuccess(this.status)) {
      this.#errorBody.push(chunk)
      if (this.receivedBytes > maxErrorBytes) this.#failByStatus()
      return
    }
    const { sink } = this.#post
    const { maxBytes } = sink
    if (maxBytes !== undefined && this.receivedBytes > maxBytes) {
      this.fail(answerTooLarge(maxBytes))
      return
    }
    if (!this.#isPaused && this.#phase === 'idle') this.#start('phase', this.#post.deadlines.idle)
    try {
      sink.onData(chunk, this)
    } catch (error) {
      this.fail(asTollgateError(error))
    }
  }

  onResponseEnd(_controller: TransportController, trailers: IncomingHttpHeaders): void {
    if (!isSuccess(this.status)) {
      this.#failByStatus()
      return
    }
    const error = this.#post.isGrpc ? grpcError({ ...this.#headers, ...trailers }) : undefined
    if (error !== undefined) this.fail(error)
    else if (this.#end()) this.#ending.resolve()
  }

  onResponseError(_controller: TransportController | null, error: Error): void {
    if (this.#isOver) return
    this.fail(this.status > 0 && !isSuccess(this.status) ? this.#statusError() : this.#connectionError(error))
  }

  readonly #onCallEnd = (reason: TollgateError): void => this.fail(reason)

  #connectionError(error: Error): TollgateError {
    const code = 'code' in error ? String(error.code) : ''
    if (code === 'UND_ERR_CONNECT_TIMEOUT') return timedOut('connect_timeout', this.#post.deadlines.connect)
    if (code === 'UND_ERR_INVALID_ARG') return asTollgateError(error)
    const failure = this.#controller === undefined ? 'no_connection' : this.status === 0 ? 'reset' : 'cut'
    return connectionFailed(failure, error)
  }

  #statusError(): TollgateError {
    const body = Buffer.concat(this.#errorBody).subarray(0, maxErrorBytes)
    return statusFailed(this.status, this.#retryAfter, body, this.#post.now())
  }

  #failByStatus(): void {
    this.fail(this.#statusError())
  }

  /** False when it had ended before. */
  #end(): boolean {
    if (this.#isOver) return false
    this.#isOver = true
    this.#timer?.end()
    this.#post.ending.offEnd(this.#onCallEnd)
    return true
  }

  #begin(phase: Phase, ms: number | undefined): void {
    this.#phase = phase
    this.#start('phase', ms)
  }

  #start(deadline: Deadline, ms: number | undefined): void {
    if (ms === undefined) {
      this.#timer?.stop(deadline)
      return
    }
    this.#timer ??= new DeadlineTimer(this.#onPassed)
    this.#timer.start(deadline, ms)
  }

  readonly #onPassed = (deadline: Deadline, ms: number): void => {
    if (deadline === 'total') this.fail(this.#totalError(ms))
    else if (deadline === 'first_token') this.fail(timedOut('first_token_timeout', ms))
    else this.fail(this.#phaseError(ms))
  }

  #phaseError(ms: number): TollgateError {
    switch (this.#phase) {
      case 'headers':
        return timedOut('headers_timeout', ms)
      case 'idle':
        return timedOut('idle_timeout', ms)
      case 'error_body':
        return this.#statusError()
      case 'rest':
        return cutStream()
    }
  }

  /** A call that never left the gate says nothing about the backend. */
  #totalError(ms: number): TollgateError {
    const neverLeft = this.#controller === undefined && this.#post.transport.isFull
    return neverLeft ? noFreeConnection(ms) : timedOut('total_timeout', ms)
  }
}

/** What a call waits for: headers, the next piece of the body, the codes of an error answer, the end that is no longer wanted. */
type Phase = 'headers' | 'idle' | 'error_body' | 'rest'

/** Nobody sees it: it closes the connection of a call whose outcome is known. */
const abandoned = new Error('the call is over')

function isGrpcType({ 'content-type': type = '' }: IncomingHttpHeaders): boolean {
  return /^application\/grpc(\+proto)?(;|$)/.test(type)
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300
}
