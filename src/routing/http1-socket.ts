import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { errors } from 'undici'

/** Where connections of one transport go. */
export interface Http1Target {
  readonly isTls: boolean
  /** Name or address, an IPv6 one without brackets. */
  readonly hostname: string
  readonly port: number
  /** Longest wait for a connection, TLS included. */
  readonly connectTimeoutMs: number
  /** Of TLS, from the connection that was made last: what saves the next one a handshake. */
  session: Buffer | undefined
}

/** So long a connection without traffic is left before the system asks whether the other side is there. */
const tcpKeepAliveMs = 60_000

/** What Node reads into and whom it tells, without a stream of chunks that are allocated anew. */
export interface ReadInto {
  readonly buffer: Buffer
  readonly callback: (bytes: number) => boolean
}

/** Begins a connection. */
export function openSocket(target: Http1Target, onread: ReadInto): Socket {
  const { isTls, hostname: host, port } = target
  const socket = isTls ? openTls(target, onread) : connectTcp({ host, port, onread })
  return socket.setNoDelay(true).setKeepAlive(true, tcpKeepAliveMs)
}

/** HTTP/2 is for gRPC: it is not offered. Whose certificates are believed is Node's to say (NODE_EXTRA_CA_CERTS). */
function openTls(target: Http1Target, onread: ReadInto): Socket {
  const { hostname: host, port, session } = target
  const options: ConnectionOptions & { onread: ReadInto } = {
    host,
    port,
    onread,
    ALPNProtocols: ['http/1.1'],
    // RFC 6066 §3: an address is no name.
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(session === undefined ? {} : { session }),
  }
  return connectTls(options).on('session', (made) => {
    target.session = made
  })
}

/** There was no connection in time. */
export function connectTimeout({ connectTimeoutMs }: Http1Target): Error {
  return new errors.ConnectTimeoutError(`no connection within ${connectTimeoutMs} ms`)
}

/** Where each address of a name was tried for its share of the time, Node says so in an error of its own. */
export function asConnectTimeout(error: Error, target: Http1Target): Error {
  if (!(error instanceof AggregateError)) return error
  const isLate = error.errors.some((one: unknown) => one instanceof Error && 'code' in one && one.code === 'ETIMEDOUT')
  return isLate ? connectTimeout(target) : error
}
