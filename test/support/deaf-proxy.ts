/**
 * A TCP proxy before a Postgres that can keep its clients from hearing notifications. Everything else passes as it comes: a
 * listening connection looks whole to both sides.
 */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

export interface DeafProxy {
  readonly port: number
  /** Notifications that were held back. */
  dropped(): number
  /** From now on no notification passes, or they pass again. */
  setDeaf(deaf: boolean): void
  /** Resets what is open and stops listening. */
  close(): Promise<void>
}

export async function startDeafProxy(socketPath: string): Promise<DeafProxy> {
  const sockets = new Set<Socket>()
  let isDeaf = false
  let dropped = 0
  const keep = (socket: Socket): Socket => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    return socket.on('error', () => socket.destroy())
  }
  const server = createServer((near) => {
    const far = keep(connect({ path: socketPath }))
    keep(near).pipe(far)
    const reader = new MessageReader()
    far.on('data', (chunk: Buffer) => {
      for (const message of reader.read(chunk)) {
        if (isDeaf && message[0] === notification) dropped++
        else near.write(message)
      }
    })
    far.on('close', () => near.destroy())
    near.on('close', () => far.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
  return {
    port: address.port,
    dropped: () => dropped,
    setDeaf(deaf) {
      isDeaf = deaf
    },
    async close() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** NotificationResponse (https://www.postgresql.org/docs/current/protocol-message-formats.html). */
const notification = 'A'.charCodeAt(0)

/** Splits what a server sends into messages: a byte for the kind, four for the length, which counts itself. */
class MessageReader {
  #rest: Buffer = Buffer.alloc(0)

  read(chunk: Buffer): Buffer[] {
    const messages: Buffer[] = []
    let rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    while (rest.length >= 5) {
      const end = 1 + rest.readInt32BE(1)
      if (rest.length < end) break
      messages.push(rest.subarray(0, end))
      rest = rest.subarray(end)
    }
    this.#rest = rest
    return messages
  }
}
