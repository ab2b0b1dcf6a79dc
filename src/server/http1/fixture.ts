import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, Socket } from 'node:net'
import { AnswerHeaders } from '../answer-headers.ts'
import type { Exchange } from '../exchange.ts'
import { until } from '../fixture.ts'
import { CommonLines } from './answer-text.ts'
import { type ConnectionOwner, SimpleConnection } from './simple-connection.ts'
import { request } from './unusual-requests.ts'

/** A connection of the gate on a real socket, without anything above it, and its caller: for one test. */
export async function openConnection(): Promise<OpenedConnection> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const caller = connect(port, '127.0.0.1').setNoDelay()
  caller.on('error', () => {})
  const [socket] = await once(server, 'connection')
  if (!(socket instanceof Socket)) throw new Error('no socket')
  socket.on('error', () => {})
  return new OpenedConnection(server, caller, socket)
}

export class OpenedConnection {
  readonly caller: Socket
  readonly connection: SimpleConnection
  readonly handled: Exchange[] = []
  /** What was still to be read when it was handed over. */
  readonly handedOver: string[] = []
  /** How often it said so. */
  broken = 0
  closed = 0
  isLeaving = false
  readonly #server: Server

  constructor(server: Server, caller: Socket, socket: Socket) {
    this.#server = server
    this.caller = caller
    const owner: ConnectionOwner = {
      lines: new CommonLines(30_000),
      isLeaving: () => this.isLeaving,
      handle: (exchange) => void this.handled.push(exchange),
      handOver: (connection) => this.#keepRest(connection.socket),
      broken: (which) => {
        this.broken += 1
        which.destroy()
      },
      closed: () => {
        this.closed += 1
      },
    }
    this.connection = new SimpleConnection(socket, owner)
  }

  /** Sends bytes, and waits until they are read. */
  async send(bytes: Uint8Array): Promise<void> {
    const { socket } = this.connection
    const before = socket.bytesRead
    this.caller.write(bytes)
    await until(() => socket.bytesRead === before + bytes.length)
  }

  /** The exchange that was begun last. */
  last(): Exchange {
    const exchange = this.handled.at(-1)
    if (exchange === undefined) throw new Error('nothing was handled')
    return exchange
  }

  /** Answers what was begun last. */
  answer(body: Uint8Array | string, headers: string[] = []): void {
    const bytes = Buffer.from(body)
    this.last().head(200, new AnswerHeaders([...headers, 'content-length', String(bytes.length)]), false)
    this.last().end(bytes)
  }

  /** Collects what comes back, chunk by chunk. */
  received(): string[] {
    const chunks: string[] = []
    this.caller.setEncoding('latin1').on('data', (chunk: string) => chunks.push(chunk))
    return chunks
  }

  async close(): Promise<void> {
    this.caller.destroy()
    this.connection.socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #keepRest(socket: Socket): void {
    const at = this.handedOver.push('') - 1
    socket.on('data', (chunk: Buffer) => {
      this.handedOver[at] += chunk.toString('latin1')
    })
  }
}

/** A request with an echo of its body in mind. */
export function post(body: string, more: readonly string[] = []): Buffer {
  return request(['POST /echo HTTP/1.1', 'host: x', ...more, `content-length: ${body.length}`], body)
}
