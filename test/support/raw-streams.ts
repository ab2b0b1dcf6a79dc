/** Streams as they are on the wire, without a client library that may make more of them than is there. */
import { connect } from 'node:http2'
import { toBinary, toJsonString } from '@bufbuild/protobuf'
import type { StreamRequestRequest } from '../../gen/marketplace/v1/consumption_pb.ts'
import { StreamRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'

/** A message of gRPC, gRPC-Web or Connect: flags, and what they are flags of. */
export interface Frame {
  readonly flags: number
  readonly data: Buffer
}

export interface RawStream {
  readonly status: number
  readonly frames: readonly Frame[]
  /** Of HTTP/2. */
  readonly trailers: Readonly<Record<string, unknown>>
}

const path = '/marketplace.v1.ConsumptionService/StreamRequest'

/** Over HTTP/1.1, in the format that the content type names. */
export async function rawHttp1(
  address: string,
  key: string,
  contentType: 'application/grpc-web+proto' | 'application/connect+json',
  request: StreamRequestRequest,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawStream> {
  const message = contentType.endsWith('json')
    ? Buffer.from(toJsonString(StreamRequestRequestSchema, request))
    : toBinary(StreamRequestRequestSchema, request)
  const response = await fetch(address + path, {
    method: 'POST',
    headers: { 'content-type': contentType, authorization: `Bearer ${key}`, ...headers },
    body: enveloped(message),
  })
  const frames = framesOf(Buffer.from(await response.arrayBuffer()))
  return { status: response.status, frames, trailers: {} }
}

/** gRPC over HTTP/2. */
export async function rawGrpc(
  address: string,
  key: string,
  request: StreamRequestRequest,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawStream> {
  const session = connect(address)
  try {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${key}`,
      ...headers,
    })
    let status = 0
    let trailers: Readonly<Record<string, unknown>> = {}
    stream.on('response', (headers) => {
      status = Number(headers[':status'])
    })
    stream.on('trailers', (headers) => {
      trailers = headers
    })
    stream.end(enveloped(toBinary(StreamRequestRequestSchema, request)))
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk)
    return { status, frames: framesOf(Buffer.concat(chunks)), trailers }
  } finally {
    session.close()
  }
}

/** A message with its flags and its length before it. */
export function enveloped(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const envelope = new Uint8Array(5 + message.length)
  new DataView(envelope.buffer).setUint32(1, message.length)
  envelope.set(message, 5)
  return envelope
}

function framesOf(body: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at < body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1)
    frames.push({ flags: body.readUInt8(at), data: body.subarray(at + 5, end) })
    at = end
  }
  return frames
}
