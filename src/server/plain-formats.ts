import type { ConnectError } from '@connectrpc/connect'
import { codeToHttpStatus, errorToJsonBytes } from '@connectrpc/connect/protocol-connect'
import { setTrailerStatus } from '@connectrpc/connect/protocol-grpc'
import { compressionGzip } from '@connectrpc/connect-node'
import type { Request, WholeAnswer } from './answer.ts'

/** How a plain request says its message, and how its answer does. */
export interface PlainFormat {
  readonly isBinary: boolean
  /** True when the message has a length-prefixed envelope; else the body is the message. */
  readonly isEnveloped: boolean
  success(message: Uint8Array, headers: Map<string, string>, request: Request): WholeAnswer | Promise<WholeAnswer>
  failure(error: ConnectError, headers: Map<string, string>, request: Request): WholeAnswer
}

/** Smaller answers are not compressed: it would cost more of the core than of the network. */
export const compressMinBytes = 16_384

const grpc: PlainFormat = {
  isBinary: true,
  isEnveloped: true,
  async success(message, headers, request) {
    announceEncoding(headers, request)
    const body =
      acceptsGzip(request.headers['grpc-accept-encoding']) && message.length >= compressMinBytes
        ? envelope(1, await compressionGzip.compress(new Uint8Array(message)))
        : envelope(0, message)
    return { status: 200, headers, whole: body, trailers: okTrailers }
  },
  failure(error, headers, request) {
    announceEncoding(headers, request)
    const trailers = Object.fromEntries(setTrailerStatus(new Headers(), error))
    return { status: 200, headers, whole: empty, trailers }
  },
}

function announceEncoding(headers: Map<string, string>, request: Request): void {
  headers.set('content-type', 'application/grpc+proto')
  if (acceptsGzip(request.headers['grpc-accept-encoding'])) headers.set('grpc-encoding', 'gzip')
}

function connect(isBinary: boolean): PlainFormat {
  return {
    isBinary,
    isEnveloped: false,
    success(message, headers, request) {
      headers.set('content-type', isBinary ? 'application/proto' : 'application/json')
      return whole(200, message, headers, request)
    },
    failure(error, headers) {
      const body = errorToJsonBytes(error, undefined)
      headers.set('content-type', 'application/json')
      headers.set('content-length', String(body.length))
      return { status: codeToHttpStatus(error.code), headers, whole: body }
    },
  }
}

async function whole(
  status: number,
  message: Uint8Array,
  headers: Map<string, string>,
  request: Request,
): Promise<WholeAnswer> {
  let body = message
  if (acceptsGzip(request.headers['accept-encoding']) && message.length >= compressMinBytes) {
    body = await compressionGzip.compress(new Uint8Array(message))
    headers.set('content-encoding', 'gzip')
  }
  headers.set('content-length', String(body.length))
  return { status, headers, whole: body }
}

const connectBinary = connect(true)
const connectJson = connect(false)

export const plainFormats: readonly PlainFormat[] = [grpc, connectBinary, connectJson]

/** The format of a plain request by its headers; undefined for whatever is compressed, a GET, or another protocol. */
export function formatOf({ method, headers, httpVersionMajor }: Request): PlainFormat | undefined {
  if (method !== 'POST' || !isIdentity(headers['content-encoding'])) return undefined
  switch (headers['content-type']) {
    case 'application/grpc':
    case 'application/grpc+proto':
      return httpVersionMajor === 2 && isIdentity(headers['grpc-encoding']) ? grpc : undefined
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

function acceptsGzip(accepted: string | string[] | undefined): boolean {
  return (
    accepted !== undefined &&
    String(accepted)
      .split(',')
      .some((name) => name.trim() === 'gzip')
  )
}

function envelope(flags: number, message: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(5 + message.length)
  bytes[0] = flags
  bytes.writeUInt32BE(message.length, 1)
  bytes.set(message, 5)
  return bytes
}

const okTrailers = Object.freeze({ 'grpc-status': '0' })
const empty = new Uint8Array(0)
