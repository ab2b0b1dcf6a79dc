import type { ConnectError } from '@connectrpc/connect'
import { codeToHttpStatus, errorToJsonBytes } from '@connectrpc/connect/protocol-connect'
import { setTrailerStatus } from '@connectrpc/connect/protocol-grpc'
import { compressionGzip } from '@connectrpc/connect-node'
import type { WholeAnswer } from './answer.ts'
import type { AnswerHeaders } from './answer-headers.ts'
import { type Exchange, noBytes, type Trailers } from './exchange.ts'
import type { IncomingHeaders } from './server-call.ts'

/** How a plain request says its message, and how its answer does. */
export interface PlainFormat {
  readonly isBinary: boolean
  /** True when the message has a length-prefixed envelope; else the body is the message. */
  readonly isEnveloped: boolean
  success(message: Uint8Array, headers: AnswerHeaders, asked: IncomingHeaders): WholeAnswer | Promise<WholeAnswer>
  failure(error: ConnectError, headers: AnswerHeaders, asked: IncomingHeaders): WholeAnswer
}

/** Smaller answers are not compressed: it would cost more of the core than of the network. */
export const compressMinBytes = 16_384

/** Its streams too: a part is what `envelope` makes of a message, and what ends them is in trailers. */
export const grpc = {
  isBinary: true,
  isEnveloped: true,
  success(message: Uint8Array, headers: AnswerHeaders, asked: IncomingHeaders): WholeAnswer | Promise<WholeAnswer> {
    const compresses = acceptsGzip(asked['grpc-accept-encoding'])
    announceEncoding(headers, compresses)
    if (compresses && message.length >= compressMinBytes) return compressedEnvelope(message, headers)
    return { status: 200, headers, whole: envelope(0, message), trailers: okTrailers }
  },
  failure(error: ConnectError, headers: AnswerHeaders, asked: IncomingHeaders): WholeAnswer {
    announceEncoding(headers, acceptsGzip(asked['grpc-accept-encoding']))
    return { status: 200, headers, whole: noBytes, trailers: failureTrailers(error) }
  },
} satisfies PlainFormat

async function compressedEnvelope(message: Uint8Array, headers: AnswerHeaders): Promise<WholeAnswer> {
  const compressed = await compressionGzip.compress(new Uint8Array(message))
  return { status: 200, headers, whole: envelope(1, compressed), trailers: okTrailers }
}

/** `compresses` when large messages of the answer may be. */
export function announceEncoding(headers: AnswerHeaders, compresses: boolean): void {
  headers.set('content-type', 'application/grpc+proto')
  if (compresses) headers.set('grpc-encoding', 'gzip')
}

/** The status of a failed call, with its details. */
export function failureTrailers(error: ConnectError): Trailers {
  return Object.fromEntries(setTrailerStatus(new Headers(), error))
}

function connect(isBinary: boolean): PlainFormat {
  const contentType = isBinary ? 'application/proto' : 'application/json'
  return {
    isBinary,
    isEnveloped: false,
    success(message, headers, asked) {
      headers.set('content-type', contentType)
      if (acceptsGzip(asked['accept-encoding']) && message.length >= compressMinBytes) {
        return compressedBody(message, headers)
      }
      return whole(200, message, headers)
    },
    failure(error, headers) {
      headers.set('content-type', 'application/json')
      return whole(codeToHttpStatus(error.code), errorToJsonBytes(error, undefined), headers)
    },
  }
}

async function compressedBody(message: Uint8Array, headers: AnswerHeaders): Promise<WholeAnswer> {
  headers.set('content-encoding', 'gzip')
  return whole(200, await compressionGzip.compress(new Uint8Array(message)), headers)
}

function whole(status: number, body: Uint8Array, headers: AnswerHeaders): WholeAnswer {
  headers.set('content-length', String(body.length))
  return { status, headers, whole: body }
}

const connectBinary = connect(true)
const connectJson = connect(false)

export const plainFormats: readonly PlainFormat[] = [grpc, connectBinary, connectJson]

/** The format of a plain request by its headers; undefined for whatever is compressed, a GET, or another protocol. */
export function formatOf({ method, headers, isHttp2 }: Exchange): PlainFormat | undefined {
  if (method !== 'POST' || !isIdentity(headers['content-encoding'])) return undefined
  switch (headers['content-type']) {
    case 'application/grpc':
    case 'application/grpc+proto':
      return isHttp2 && isIdentity(headers['grpc-encoding']) ? grpc : undefined
    case 'application/proto':
      return connectBinary
    case 'application/json':
    case 'application/json; charset=utf-8':
      return connectJson
    default:
      return undefined
  }
}

function isIdentity(encoding: string | string[] | undefined): boolean {
  return encoding === undefined || encoding === 'identity'
}

/** Whether the caller lists gzip among the encodings that it takes. */
export function acceptsGzip(accepted: string | string[] | undefined): boolean {
  return (
    accepted !== undefined &&
    String(accepted)
      .split(',')
      .some((name) => name.trim() === 'gzip')
  )
}

/** What precedes a message in gRPC: a byte of flags, and four of length. */
export const envelopeBytes = 5

/** Writes what precedes a message of `length` bytes into `target` at `at`. */
export function writeEnvelope(target: Buffer, at: number, flags: number, length: number): void {
  target[at] = flags
  target.writeUInt32BE(length, at + 1)
}

/** A message as gRPC sends it. */
export function envelope(flags: number, message: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(envelopeBytes + message.length)
  writeEnvelope(bytes, 0, flags, message.length)
  bytes.set(message, envelopeBytes)
  return bytes
}

/** The status of a call that went well. */
export const okTrailers: Trailers = Object.freeze({ 'grpc-status': '0' })
