import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { pino } from 'pino'
import type { Exchange } from '../exchange.ts'
import { Http2Connection } from './connection.ts'
import {
  defaultWindow,
  FrameReader,
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
  const payload = Buffer.alloc(6)
  payload.writeUInt16BE(settingIds.initialWindowSize)
  payload.writeUInt32BE(maxWindow, 2)
  const more = Buffer.alloc(4)
  more.writeUInt32BE(maxWindow - defaultWindow)
  return Buffer.concat([frame(frameTypes.settings, 0, 0, payload), frame(frameTypes.windowUpdate, 0, 0, more)])
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
