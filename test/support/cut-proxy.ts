/**
 * A TCP proxy on loopback that breaks what passes through it, on command.
 *
 * - **cut**: every connection is reset, on both sides.
 * - **refuse**: connections that come from now on are reset at once.
 * - **stall**: connections are accepted and kept, and nothing passes; what was written before may still arrive.
 * - **heal**: everything passes again; what was held up goes on where it stopped.
 */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/** What a proxy connects to. */
export type Upstream = { readonly host: string; readonly port: number } | { readonly path: string }

export interface CutProxyOptions {
  /** Asked for each new connection, because a server may come back elsewhere. */
  readonly upstream: () => Upstream
  /** Open connections at most; more are dropped. Default 1000. */
  readonly maxConnections?: number
}

export interface CutProxy {
  readonly port: number
  /** Callers that are connected. */
  connections(): number
  cut(): void
  refuse(): void
  stall(): void
  heal(): void
  /** Resets what is open and stops listening. Safe to call again. */
  close(): Promise<void>
}

/**
 * Starts the proxy on a free port of 127.0.0.1. It holds no more of a connection than the buffers of its two sockets: who
 * writes faster than the other side reads is held back.
 */
export async function startCutProxy({ upstream, maxConnections = 1_000 }: CutProxyOptions): Promise<CutProxy> {
  const links = new Set<Link>()
  let mode: 'pass' | 'refuse' | 'stall' = 'pass'

  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (near) => {
    if (mode === 'refuse') {
      near.on('error', ignore)
      reset(near)
      return
    }
    const link = new Link(near, upstream, () => links.delete(link))
    links.add(link)
    if (mode === 'pass') link.pass()
  })
  server.maxConnections = maxConnections
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port')

  const cut = (): void => {
    for (const link of [...links]) link.reset()
  }
  let closed: Promise<void> | undefined
  return {
    port: address.port,
    connections: () => links.size,
    cut,
    refuse() {
      mode = 'refuse'
    },
    stall() {
      mode = 'stall'
      for (const link of links) link.hold()
    },
    heal() {
      mode = 'pass'
      for (const link of [...links]) link.pass()
    },
    close() {
      closed ??= new Promise<void>((resolve) => {
        server.close(() => resolve())
        cut()
      })
      return closed
    },
  }
}

/** One caller and its connection to the upstream, which is opened when something may pass for the first time. */
class Link {
  readonly #near: Socket
  readonly #upstream: () => Upstream
  readonly #onEnd: () => void
  #far: Socket | undefined
  #isHeld = true
  #isOver = false

  constructor(near: Socket, upstream: () => Upstream, onEnd: () => void) {
    this.#near = near
    this.#upstream = upstream
    this.#onEnd = onEnd
    this.#watch(near)
  }

  pass(): void {
    // A second pipe would pass everything twice.
    if (this.#isOver || !this.#isHeld) return
    this.#isHeld = false
    if (this.#far === undefined) {
      this.#far = connect({ ...this.#upstream(), allowHalfOpen: true, noDelay: true })
      this.#watch(this.#far)
    }
    // pipe() stops reading while the other side's buffer is full, and passes on the end of either direction.
    this.#near.pipe(this.#far)
    this.#far.pipe(this.#near)
  }

  hold(): void {
    this.#isHeld = true
    // Without a destination a socket is paused.
    this.#near.unpipe()
    this.#far?.unpipe()
  }

  reset(): void {
    if (this.#isOver) return
    this.#isOver = true
    reset(this.#near)
    if (this.#far !== undefined) reset(this.#far)
    this.#onEnd()
  }

  #watch(socket: Socket): void {
    socket.on('error', () => this.reset())
    socket.on('close', () => {
      if (this.#near.closed && this.#far?.closed !== false) {
        this.#isOver = true
        this.#onEnd()
      }
    })
  }
}

/**
 * A connection that is still being made has nobody to reset, and a Unix socket knows no reset. One whose end is on its way
 * cannot be reset, and Node would keep its handle for ever (uv_tcp_close_reset refuses it).
 */
function reset(socket: Socket): void {
  const isEnding = socket.writableEnded && !socket.writableFinished
  if (socket.remoteAddress === undefined || isEnding) socket.destroy()
  else socket.resetAndDestroy()
}

function ignore(): void {}
