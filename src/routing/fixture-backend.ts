import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { Http1Transport } from './http1-transport.ts'
import type { TransportController, TransportRequest } from './transport.ts'

/** A backend of bare sockets, and the transport that calls it: for one test. */
export async function openBackend(): Promise<RawBackend> {
  const server = createServer()
  const origin = await listen(server, '127.0.0.1')
  return new RawBackend(server, new Http1Transport({ origin, connectTimeoutMs: 2_000, maxConnections: 4 }))
}

async function listen(server: Server, host: string): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return `http://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`
}

/** A connection as the backend sees it. */
interface Seen {
  readonly socket: Socket
  /** All that came on it. */
  text: string
}

/** What was told of a call; `over` resolves with the last word. */
interface Told {
  readonly over: Promise<string>
  controller: TransportController | undefined
  status: number
  /** So far. */
  body: string
  ends: number
}

type Hook = (controller: TransportController) => void

export class RawBackend {
  server: Server
  transport: Http1Transport
  readonly seen: Seen[] = []
  /** What the backend does with each request that came whole. */
  answer: (socket: Socket, number: number) => void = (socket) => socket.write(whole('answer'))

  readonly onConnection = (socket: Socket): void => {
    const connection: Seen = { socket, text: '' }
    this.seen.push(connection)
    let answered = 0
    socket.setNoDelay(true).on('error', () => {})
    socket.on('data', (part) => {
      connection.text += part.toString('latin1')
      if (connection.text.split('\r\n\r\nbody').length - 1 <= answered) return
      answered += 1
      this.answer(socket, answered)
    })
  }

  constructor(server: Server, transport: Http1Transport) {
    this.server = server.on('connection', this.onConnection)
    this.transport = transport
  }

  /** Takes another server in place of the one that there was; returns its origin. */
  async replace(server: Server, host = '127.0.0.1'): Promise<string> {
    await new Promise((resolve) => this.server.close(resolve))
    this.server = server
    return listen(server, host)
  }

  call(changes: Partial<TransportRequest> = {}, onStart?: Hook, onData?: Hook): Told {
    const over = Promise.withResolvers<string>()
    const told: Told = { over: over.promise, controller: undefined, status: 0, body: '', ends: 0 }
    const end = (word: string): void => {
      told.ends += 1
      over.resolve(word)
    }
    this.transport.dispatch(
      { path: '/path?a=b', method: 'POST', headers: { 'x-name': 'value' }, body: Buffer.from('body'), ...changes },
      {
        onRequestStart(controller) {
          told.controller = controller
          onStart?.(controller)
        },
        onResponseStart(_, status) {
          told.status = status
        },
        onResponseData(controller, chunk) {
          told.body += chunk.toString('latin1')
          onData?.(controller)
        },
        onResponseEnd: () => end(told.body),
        onResponseError: (controller, error) => end(`${controller === null ? 'no connection: ' : ''}${error.message}`),
      },
    )
    return told
  }

  async close(): Promise<void> {
    for (const { socket } of this.seen) socket.destroy()
    await this.transport.close()
    await new Promise((resolve) => this.server.close(resolve))
  }
}

/** A counted answer. */
export const whole = (body: string, fields = ''): string =>
  `HTTP/1.1 200 OK\r\n${fields}content-length: ${body.length}\r\n\r\n${body}`
