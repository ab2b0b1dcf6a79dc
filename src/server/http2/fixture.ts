import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { pino } from 'pino'
import { AnswerHeaders } from '../answer-headers.ts'
import { type Exchange, noBytes } from '../exchange.ts'
import { Http2Connection } from './connection.ts'
import {
  defaultWindow,
  FrameReader,
  flags,
  frameHeadBytes,
  frameTypes,
  maxWindow,
  preface,
  settingIds,
  uint32,
  writeFrameHead,
} from './frames.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { fieldMaxBytes, writeField } from './hpack-encoder.ts'

/** A server of HTTP/2 for tests of this folder, without anything above it: `handle` is told of each request. */
export interface Http2Fixture {
  readonly port: number
  readonly address: string
  /** Those that were accepted, in order. */
  readonly connections: readonly Http2Connection[]
  close(): Promise<void>
}

export async function serveHttp2(
  handle: (exchange: Exchange) => void,
  maxStreams = 100,
  highWaterMark?: number,
): Promise<Http2Fixture> {
  const connections: Http2Connection[] = []
  const log = pino({ level: 'silent' })
  const server = createServer({ noDelay: true, ...(highWaterMark && { highWaterMark }) }, (socket) => {
    socket.on('error', () => {})
    connections.push(new Http2Connection(socket, { maxStreamsPerConnection: maxStreams, handle, log }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    port,
    address: `http://127.0.0.1:${port}`,
    connections,
    async close() {
      for (const connection of connections) connection.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A server that does what the path of a request says, for the tests of a file, and Node's client for it. */
export interface PathServer extends Http2Fixture {
  /** What was asked in the test that runs. */
  readonly exchanges: readonly Exchange[]
  session(options?: Parameters<typeof connectHttp2>[1]): ClientHttp2Session
  /** To be called after each test: forgets its requests, and ends its sessions. */
  forget(): void
}

export async function startPathServer(): Promise<PathServer> {
  const exchanges: Exchange[] = []
  const sessions: ClientHttp2Session[] = []
  const fixture = await serveHttp2((exchange) => {
    exchanges.push(exchange)
    void act(exchange)
  }, 1000)
  return {
    ...fixture,
    exchanges,
    session(options = {}) {
      const opened = connectHttp2(fixture.address, options)
      opened.on('error', () => {})
      sessions.push(opened)
      return opened
    },
    forget() {
      exchanges.length = 0
      for (const session of sessions.splice(0)) session.destroy()
    },
  }
}

async function act(exchange: Exchange): Promise<void> {
  const [, what, size] = exchange.path.split('/')
  switch (what) {
    case 'echo': {
      const chunks: Uint8Array[] = []
      for await (const chunk of exchange.body) chunks.push(chunk)
      return answer(exchange, Buffer.concat(chunks))
    }
    case 'relay':
      exchange.head(200, new AnswerHeaders(), true)
      for await (const chunk of exchange.body) {
        exchange.write(chunk)
        await exchange.drained()
      }
      return exchange.end(noBytes, { done: 'yes' })
    case 'bytes':
      return answer(exchange, Buffer.alloc(Number(size), 7))
    case 'fill':
      return answer(exchange, Buffer.alloc(4000, Number(size)))
    case 'held':
      return undefined
    default:
      return answer(exchange, Buffer.from('ok'))
  }
}

/** Answers with trailers. */
export function answer(exchange: Exchange, bytes: Uint8Array, status = 200, fields: string[] = []): void {
  exchange.head(status, new AnswerHeaders(fields), true)
  exchange.end(bytes, { 'grpc-status': '0' })
  void exchange.left()
}

interface Answer {
  readonly headers: Record<string, unknown>
  readonly trailers: Record<string, unknown>
  readonly body: Buffer
}

export async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  let answered: Record<string, unknown> = {}
  let trailers: Record<string, unknown> = {}
  stream.on('response', (fields) => {
    answered = fields
  })
  stream.on('trailers', (fields) => {
    trailers = fields
  })
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return { headers: answered, trailers, body: Buffer.concat(chunks) }
}

/** Asks, and reads the answer. */
export function ask(
  on: ClientHttp2Session,
  path: string,
  body?: Buffer,
  fields: Record<string, string | string[]> = {},
) {
  const stream = on.request({ ':method': body === undefined ? 'GET' : 'POST', ':path': path, ...fields })
  stream.end(body)
  return answerOf(stream)
}

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly id: number
  readonly payload: Buffer
}

/** A peer that says what it is told to, right or wrong, and keeps what it hears. */
export class RawPeer {
  readonly frames: Frame[] = []
  isClosed = false
  readonly #socket: Socket
  readonly #decoder = new HpackDecoder()
  readonly #reader = new FrameReader(this)
  #wake: (() => void) | undefined

  /** Says the preface and empty SETTINGS, unless it is to begin in another way. */
  constructor(port: number, begin: Buffer = Buffer.concat([preface, frame(frameTypes.settings, 0, 0)])) {
    this.#socket = connect(port, '127.0.0.1')
    this.#socket.on('error', () => {})
    this.#socket.on('data', (chunk) => {
      this.#reader.read(chunk)
      this.#wake?.()
    })
    this.#socket.on('close', () => {
      this.isClosed = true
      this.#wake?.()
    })
    this.send(begin)
  }

  frame(type: number, flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    this.frames.push({ type, flags, id, payload: Buffer.from(bytes.subarray(from, to)) })
  }

  send(...parts: readonly Buffer[]): void {
    this.#socket.write(Buffer.concat(parts))
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** Resolves when `check` holds of what came, or the connection is closed. */
  async until(check: () => boolean): Promise<void> {
    while (!check() && !this.isClosed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** Resolves with the first frame of a type, of a stream where one is named; undefined when the connection closed without it. */
  async first(type: number, id?: number): Promise<Frame | undefined> {
    const found = (): Frame | undefined => this.frames.find((each) => each.type === type && each.id === (id ?? each.id))
    await this.until(() => found() !== undefined)
    return found()
  }

  /** Asks with a ping whether all that was sent is dealt with, and waits for the answer or the end of the connection. */
  async settled(): Promise<void> {
    const payload = Buffer.alloc(8)
    payload.writeUInt32BE(++pings)
    this.send(frame(frameTypes.ping, 0, 0, payload))
    await this.until(() => this.frames.some((each) => each.type === frameTypes.ping && each.payload.equals(payload)))
  }

  /** The code with which the connection ended; undefined when it goes on. */
  get goneWith(): number | undefined {
    const goAway = this.frames.find(({ type }) => type === frameTypes.goAway)
    return goAway && uint32(goAway.payload, 4)
  }

  resetCode(id: number): number | undefined {
    const reset = this.frames.find((each) => each.type === frameTypes.rstStream && each.id === id)
    return reset && uint32(reset.payload, 0)
  }

  fields({ payload }: Frame): Record<string, string> {
    const list = this.#decoder.decode(payload, 0, payload.length, 65_536) ?? []
    const fields: Record<string, string> = {}
    for (let at = 0; at < list.length; at += 2) fields[list[at] ?? ''] = list[at + 1] ?? ''
    return fields
  }

  close(): void {
    this.#socket.destroy()
  }
}

let pings = 0

/** Takes as much of each answer, and of all, as there can be. */
export function allRoom(): Buffer {
  const widest = setting(settingIds.initialWindowSize, maxWindow)
  const more = number(maxWindow - defaultWindow)
  return Buffer.concat([frame(frameTypes.settings, 0, 0, widest), frame(frameTypes.windowUpdate, 0, 0, more)])
}

export function frame(type: number, flags: number, id: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(frameHeadBytes)
  writeFrameHead(head, 0, payload.length, type, flags, id)
  return Buffer.concat([head, payload])
}

/** A header block of fields, none of which goes into a table. */
export function block(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.map(([name, value]) => {
      const bytes = Buffer.alloc(fieldMaxBytes(name, value))
      return bytes.subarray(0, writeField(bytes, 0, name, value))
    }),
  )
}

/** What a good request says. */
export const goodFields: readonly (readonly [string, string])[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/x'],
  [':authority', 'test'],
]

/** The fields of a good request for a path. */
export function fieldsFor(of: string): (readonly [string, string])[] {
  return goodFields.map(([name, value]) => [name, name === ':path' ? of : value])
}

/** A good request without a body. */
export function asked(of: string, id: number): Buffer {
  return frame(frameTypes.headers, flags.endHeaders | flags.endStream, id, block(fieldsFor(of)))
}

/** A good request for `/x` that begins a stream. */
export function open(id: number, more = 0): Buffer {
  return frame(frameTypes.headers, flags.endHeaders | more, id, block(goodFields))
}

/** Four bytes. */
export function number(value: number): Buffer {
  return Buffer.from([value >>> 24, value >>> 16, value >>> 8, value])
}

/** One of the settings in a frame of them. */
export function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.from([id >> 8, id]), number(value)])
}
