import {
  createSecureServer,
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { RouteRequestResponseSchema, StreamRequestResponseSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { frameMessage } from '../../src/providers/grpc-frames.ts'

/** A server that speaks HTTP/2 alone, and whose answers are made by hand, frame by frame. */
export interface GrpcUpstream {
  readonly url: string
  /** Headers of the calls, oldest first. */
  readonly calls: IncomingHttpHeaders[]
  /** Connections since the start. */
  readonly sessions: ServerHttp2Session[]
  /** Calls whose caller reset them. */
  readonly aborted: ServerHttp2Stream[]
  /** Answers the calls from now on. */
  answer: (stream: ServerHttp2Stream) => void
  close(): Promise<void>
}

/** Starts one, with TLS when it gets a certificate. */
export async function startGrpcUpstream(tls?: { readonly cert: string; readonly key: string }): Promise<GrpcUpstream> {
  const server = tls === undefined ? createServer() : createSecureServer(tls)
  const calls: IncomingHttpHeaders[] = []
  const sessions: ServerHttp2Session[] = []
  const aborted: ServerHttp2Stream[] = []
  server.on('session', (session) => {
    sessions.push(session)
    session.on('error', () => {})
  })
  server.on('stream', (stream, headers) => {
    calls.push(headers)
    stream.on('error', () => {})
    stream.on('aborted', () => aborted.push(stream))
    stream.resume().on('end', () => upstream.answer(stream))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  const upstream: GrpcUpstream = {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${address.port}`,
    calls,
    sessions,
    aborted,
    answer: (stream) => stream.close(),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const session of sessions) session.destroy()
      }),
  }
  return upstream
}

const type = 'application/grpc+proto'

/** Sends messages and trailers; without trailers the body just ends. */
export function answerGrpc(
  stream: ServerHttp2Stream,
  messages: readonly Uint8Array[],
  trailers?: Readonly<Record<string, string>>,
): void {
  beginGrpc(stream, messages, trailers)
  stream.end()
}

/** The same without the end. */
export function beginGrpc(
  stream: ServerHttp2Stream,
  messages: readonly Uint8Array[],
  trailers?: Readonly<Record<string, string>>,
): void {
  stream.respond({ ':status': 200, 'content-type': type }, { waitForTrailers: trailers !== undefined })
  stream.on('wantTrailers', () => stream.sendTrailers(trailers ?? {}))
  for (const message of messages) stream.write(message)
}

/** Trailers alone, as errors before the first message come. */
export function refuseGrpc(stream: ServerHttp2Stream, trailers: Readonly<Record<string, string>>): void {
  stream.respond({ ':status': 200, 'content-type': type, ...trailers }, { endStream: true })
}

export function routed(told: MessageInitShape<typeof RouteRequestResponseSchema>): Uint8Array {
  return frameMessage(toBinary(RouteRequestResponseSchema, create(RouteRequestResponseSchema, told)))
}

export function streamed(part: NonNullable<MessageInitShape<typeof StreamRequestResponseSchema>['part']>): Uint8Array {
  return frameMessage(toBinary(StreamRequestResponseSchema, create(StreamRequestResponseSchema, { part })))
}
