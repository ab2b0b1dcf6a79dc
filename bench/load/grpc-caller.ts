import { connect, type Socket } from 'node:net'
import type { LoadOrder } from '../orders.ts'
import type { Caller, OnEnd } from './caller.ts'
import {
  acknowledged,
  defaultWindow,
  encodeHeaders,
  endHeaders,
  endStream,
  frame,
  frameHeadLength,
  frameTypes,
  maxWindow,
  opening,
  readGrpcStatus,
  windowUpdate,
} from './http2-frames.ts'
import { TokenReader } from './token-reader.ts'

const callTimeoutMs = 60_000
const maxFrame = 16_384

/**
 * gRPC over one HTTP/2 connection that all callers share, with frames made by hand: node:http2 takes about 70 µs for a
 * call, several times what a lean server takes to answer it.
 */
export class GrpcConnection {
  readonly #socket: Socket
  readonly #message: Buffer
  readonly #headers: { readonly first: Buffer; readonly later: Buffer }
  readonly #calls = new Map<number, GrpcCaller>()
  readonly #tokens: number | undefined
  /** Calls whose message is not sent to its end, for want of room. */
  readonly #waiting = new Set<GrpcCaller>()
  readonly #out: Buffer[] = []
  #nextId = 1
  #held: Buffer | undefined
  #isReady = false
  #isTaking = false
  #isClosed = false
  #sendWindow = defaultWindow
  #streamWindow = defaultWindow
  #received = 0

  constructor(order: LoadOrder) {
    const { hostname, port, host } = new URL(order.origin)
    const message = Buffer.from(order.body, 'base64')
    this.#message = Buffer.concat([Buffer.alloc(5), message])
    this.#message.writeUInt32BE(message.length, 1)
    this.#headers = encodeHeaders([
      [':path', order.path],
      [':authority', host],
      ['content-type', 'application/grpc+proto'],
      ['te', 'trailers'],
      ...Object.entries(order.headers),
    ])
    this.#tokens = order.tokens
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true })
    this.#socket.setTimeout(callTimeoutMs, () => this.#socket.destroy(new Error('no answer in time')))
    this.#socket.on('error', (error) => this.#fail(String(error)))
    this.#socket.on('close', () => this.#fail('the connection was closed'))
    this.#socket.on('data', (chunk: Buffer) => this.#take(chunk))
    this.#socket.write(opening())
  }

  caller(onEnd: OnEnd): Caller {
    return new GrpcCaller(this, onEnd, this.#tokens)
  }

  begin(caller: GrpcCaller): void {
    caller.id = this.#nextId
    this.#nextId += 2
    caller.sent = 0
    caller.window = this.#streamWindow
    this.#calls.set(caller.id, caller)
    const block = caller.id === 1 ? this.#headers.first : this.#headers.later
    this.#out.push(frame(frameTypes.headers, endHeaders, caller.id, block))
    this.#pump(caller)
    this.#flush()
  }

  close(): void {
    this.#isClosed = true
    this.#socket.destroy()
  }

  /** Sends as much of a call's message as there is room for. */
  #pump(caller: GrpcCaller): void {
    while (this.#isReady && caller.sent < this.#message.length) {
      const room = Math.min(this.#sendWindow, caller.window, maxFrame, this.#message.length - caller.sent)
      if (room <= 0) break
      const part = this.#message.subarray(caller.sent, caller.sent + room)
      caller.sent += room
      caller.window -= room
      this.#sendWindow -= room
      const flags = caller.sent === this.#message.length ? endStream : 0
      this.#out.push(frame(frameTypes.data, flags, caller.id, part))
    }
    if (caller.sent < this.#message.length) this.#waiting.add(caller)
    else this.#waiting.delete(caller)
  }

  /** What one read of the socket brings about leaves in one write. */
  #flush(): void {
    if (this.#isTaking || this.#out.length === 0) return
    const [only] = this.#out
    this.#socket.write(this.#out.length === 1 && only !== undefined ? only : Buffer.concat(this.#out))
    this.#out.length = 0
  }

  #take(chunk: Buffer): void {
    const bytes = this.#held === undefined ? chunk : Buffer.concat([this.#held, chunk])
    this.#isTaking = true
    let at = 0
    while (bytes.length - at >= frameHeadLength) {
      const end = at + frameHeadLength + bytes.readUIntBE(at, 3)
      if (end > bytes.length) break
      const payload = bytes.subarray(at + frameHeadLength, end)
      this.#onFrame(bytes.readUInt8(at + 3), bytes.readUInt8(at + 4), bytes.readUInt32BE(at + 5), payload)
      at = end
    }
    this.#held = at < bytes.length ? bytes.subarray(at) : undefined
    this.#isTaking = false
    this.#flush()
  }

  #onFrame(type: number, flags: number, id: number, payload: Buffer): void {
    const caller = this.#calls.get(id)
    switch (type) {
      case frameTypes.data:
        this.#countReceived(payload.length)
        caller?.tokens?.take(payload)
        if ((flags & endStream) !== 0) this.#end(id, 'an answer without trailers')
        return
      case frameTypes.headers:
        if ((flags & endStream) !== 0) this.#end(id, failureOf(payload))
        return
      case frameTypes.reset:
        this.#end(id, `the call was reset with ${payload.readUInt32BE(0)}`)
        return
      case frameTypes.goAway:
        this.#fail(`the server goes away: ${payload.toString('latin1', 8)}`)
        return
      case frameTypes.windowUpdate:
        if (id === 0) this.#sendWindow += payload.readUInt32BE(0)
        else if (caller !== undefined) caller.window += payload.readUInt32BE(0)
        for (const waiting of this.#waiting) this.#pump(waiting)
        return
      case frameTypes.ping:
        if ((flags & acknowledged) === 0) this.#out.push(frame(frameTypes.ping, acknowledged, 0, payload))
        return
      case frameTypes.settings:
        if ((flags & acknowledged) === 0) this.#onSettings(payload)
    }
  }

  #onSettings(payload: Buffer): void {
    for (let at = 0; at < payload.length; at += 6)
      if (payload.readUInt16BE(at) === 4) this.#streamWindow = payload.readUInt32BE(at + 2)
    this.#isReady = true
    this.#out.push(frame(frameTypes.settings, acknowledged, 0, Buffer.alloc(0)))
    for (const waiting of this.#waiting) {
      waiting.window = this.#streamWindow
      this.#pump(waiting)
    }
  }

  #countReceived(bytes: number): void {
    this.#received += bytes
    if (this.#received < maxWindow / 2) return
    this.#out.push(windowUpdate(this.#received))
    this.#received = 0
  }

  #end(id: number, failure: string | undefined): void {
    const caller = this.#calls.get(id)
    this.#calls.delete(id)
    if (caller === undefined) return
    this.#waiting.delete(caller)
    caller.onEnd(failure)
  }

  #fail(failure: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const id of [...this.#calls.keys()]) this.#end(id, failure)
    this.#socket.destroy()
  }
}

class GrpcCaller implements Caller {
  readonly tokens: TokenReader | undefined
  readonly onEnd: OnEnd
  readonly #connection: GrpcConnection
  id = 0
  /** Bytes of the message that were sent. */
  sent = 0
  window = 0

  constructor(connection: GrpcConnection, onEnd: OnEnd, tokens: number | undefined) {
    this.#connection = connection
    this.onEnd = onEnd
    this.tokens = tokens === undefined ? undefined : new TokenReader()
  }

  send(): void {
    this.tokens?.reset()
    this.#connection.begin(this)
  }

  close(): void {
    this.#connection.close()
  }
}

function failureOf(trailers: Buffer): string | undefined {
  const status = readGrpcStatus(trailers)
  return status === '0' ? undefined : `grpc-status ${status} in ${trailers.toString('latin1')}`
}
