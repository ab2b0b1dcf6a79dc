import { constants } from 'node:crypto'
import { type AddressInfo, createServer as createTcp, type Server, type Socket } from 'node:net'
import { createServer as createTls, type SecureContextOptions, TLSSocket } from 'node:tls'
import type { Logger } from 'pino'
import type { Certificates } from './certificates.ts'
import type { Exchange } from './exchange.ts'
import { type HandshakeFailure, handshakeFailure } from './handshake-failure.ts'
import { createHttp1Server } from './http1/server.ts'
import { preface } from './http2/frames.ts'
import { createHttp2Server } from './http2/server.ts'
import type { CertificateFiles } from './read-certificates.ts'

export interface ListenerOptions {
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  /** With it the port speaks TLS 1.3 only. */
  readonly tls?: TlsOptions | undefined
  readonly maxStreamsPerConnection: number
  /** Age at which a connection is asked to close, give or take a tenth, so that load balancers spread callers anew. */
  readonly maxConnectionAgeMs: number
  /** Time for the first bytes, the TLS handshake, and the headers of an HTTP/1.1 request. */
  readonly headersTimeoutMs: number
  /** Time for the body of an HTTP/1.1 request. */
  readonly bodyTimeoutMs: number
  /** Interval of HTTP/2 pings, and how long an idle HTTP/1.1 connection is kept. */
  readonly keepAliveMs: number
  /** Time that the calls of an aged connection get after it was asked to close; at least the longest deadline. */
  readonly ageGraceMs: number
  readonly log: Logger
}

export interface TlsOptions {
  /** Followed while the listener runs: new connections get what is current. */
  readonly certificates: Pick<Certificates, 'current' | 'onChange'>
  readonly clientAuth: ClientAuth
  /** Told of each connection that did not come about; must not throw. */
  readonly handshakeFailed?: ((why: HandshakeFailure) => void) | undefined
}

/** Whether clients are asked for a certificate, and must have one. One that is not good is refused either way. */
export type ClientAuth = 'off' | 'optional' | 'required'

/** One port for HTTP/1.1 and HTTP/2, in clear or over TLS. */
export interface Listener {
  readonly host: string
  readonly port: number
  /**
   * Accepts no more connections, and asks the open ones to close: over HTTP/2 at once, over HTTP/1.1 with the next answer.
   * Idempotent.
   */
  drain(): void
  /** Closes HTTP/1.1 connections without a request; a request that is on its way there is lost. */
  closeIdle(): void
  /** Resolves when the last connection is gone. */
  readonly closed: Promise<void>
  /** Cuts every connection. */
  destroy(): void
}

/**
 * Listens. In clear, the first bytes of a connection say which HTTP it speaks; over TLS the client says so in ALPN. Rejects
 * when the port is taken.
 */
export async function listen(options: ListenerOptions, handle: (exchange: Exchange) => void): Promise<Listener> {
  const { log } = options
  const sockets = new Set<Socket>()
  const aged = new WeakSet<object>()
  let draining = false
  const http1 = createHttp1Server(options, (socket) => draining || aged.has(socket), handle)
  const http2 = createHttp2Server(options, handle)

  const accept = (socket: Socket): void => {
    sockets.add(socket)
    // The raw socket needs a listener of its own: before the hand-over nobody else has one.
    socket.on('error', (err) => log.debug({ err }, 'connection failed'))
    const maxAgeMs = jittered(options.maxConnectionAgeMs)
    const age = setTimeout(() => aged.add(socket), maxAgeMs)
    socket.once('close', () => {
      clearTimeout(age)
      sockets.delete(socket)
    })
    if (socket instanceof TLSSocket && socket.alpnProtocol === 'h2') http2.serve(socket, maxAgeMs)
    else
      sniff(socket, options.headersTimeoutMs, (isHttp2) =>
        isHttp2 ? http2.serve(socket, maxAgeMs) : http1.serve(socket),
      )
  }
  const server = acceptor(options, accept)
  server.maxConnections = maxConnections
  const closed = new Promise<void>((resolve) => server.once('close', resolve))
  const { address, port } = await listening(server, options)
  http1.start()
  server.on('error', (err) => log.error({ err }, 'listener failed'))
  return {
    host: address,
    port,
    closed,
    drain() {
      if (draining) return
      draining = true
      server.close()
      http2.drain()
    },
    closeIdle: () => http1.closeIdle(),
    destroy() {
      http1.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Connections beyond it are closed as they come: each costs a socket and some kilobytes. */
const maxConnections = 20_000

/** Reads until it is clear whether the bytes are HTTP/2's connection preface, puts them back, and says so. */
function sniff(socket: Socket, timeoutMs: number, handOver: (isHttp2: boolean) => void): void {
  const timer = setTimeout(() => socket.destroy(), timeoutMs)
  socket.once('close', () => clearTimeout(timer))
  let seen = Buffer.alloc(0)
  const onReadable = (): void => {
    for (let chunk: unknown = socket.read(); Buffer.isBuffer(chunk); chunk = socket.read()) {
      seen = Buffer.concat([seen, chunk])
    }
    const length = Math.min(seen.length, preface.length)
    const isPrefix = seen.compare(preface, 0, length, 0, length) === 0
    if (isPrefix && seen.length < preface.length && !socket.readableEnded) return
    socket.off('readable', onReadable)
    clearTimeout(timer)
    if (socket.destroyed || socket.readableEnded) return void socket.destroy()
    socket.unshift(seen)
    handOver(isPrefix)
  }
  socket.on('readable', onReadable)
}

function acceptor({ tls, headersTimeoutMs, log }: ListenerOptions, accept: (socket: Socket) => void): Server {
  if (tls === undefined) return createTcp({ noDelay: true, keepAlive: true }, accept)
  const { certificates, clientAuth, handshakeFailed } = tls
  const failed = (code: unknown, err?: Error): void => {
    log.debug({ err, code }, 'TLS handshake failed')
    handshakeFailed?.(handshakeFailure(code))
  }
  const server = createTls(
    {
      ...secureContext(certificates.current(), clientAuth),
      requestCert: clientAuth !== 'off',
      rejectUnauthorized: clientAuth === 'required',
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout: headersTimeoutMs,
      noDelay: true,
      keepAlive: true,
    },
    (socket) => {
      // Where certificates are optional Node lets bad ones pass, too. Whoever shows one means to be known by it.
      if (clientAuth === 'optional' && !socket.authorized && socket.getPeerX509Certificate() !== undefined) {
        socket.on('error', () => {})
        failed(socket.authorizationError)
        return void socket.destroy()
      }
      accept(socket)
    },
  )
  server.on('tlsClientError', (err: NodeJS.ErrnoException, socket) =>
    failed(socket.authorizationError ?? err.code, err),
  )
  certificates.onChange((files) => server.setSecureContext(secureContext(files, clientAuth)))
  return server
}

function secureContext({ cert, key, ca }: CertificateFiles, clientAuth: ClientAuth): SecureContextOptions {
  return {
    cert,
    key,
    minVersion: 'TLSv1.3',
    ...(clientAuth === 'off' || ca === undefined ? {} : { ca }),
    // A resumed session would bring its certificate back unseen: expired since, or of a CA that is trusted no more.
    ...(clientAuth === 'off' ? {} : { secureOptions: constants.SSL_OP_NO_TICKET }),
  }
}

async function listening(server: Server, { host, port }: ListenerOptions): Promise<AddressInfo> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const onError = (cause: NodeJS.ErrnoException): void => {
    const taken = cause.code === 'EADDRINUSE'
    reject(taken ? new Error(`Port ${port} of ${host} is in use. Set PORT to a free one.`, { cause }) : cause)
  }
  server.once('error', onError)
  server.listen({ host, port }, resolve)
  await promise
  server.off('error', onError)
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the listener has no address')
  return address
}

function jittered(ms: number): number {
  return ms * (0.9 + Math.random() * 0.2)
}
