import { connect, type Socket } from 'node:net'
import type { LoadOrder } from '../orders.ts'
import type { Caller, OnEnd } from './caller.ts'
import { TokenReader } from './token-reader.ts'

const callTimeoutMs = 60_000
const ok = Buffer.from('HTTP/1.1 200')
const headEnd = Buffer.from('\r\n\r\n')
const lengthField = Buffer.from('content-length: ')
const lastChunk = Buffer.from('0\r\n\r\n')
const done = Buffer.from('[DONE]')

/**
 * HTTP/1.1 over one keep-alive connection, without pipelining, on a bare socket. Of an answer it reads the status and the
 * length alone: a client library costs about as much as a lean server's whole answer, and the load generator shares a
 * core with the backend.
 */
export class Http1Caller implements Caller {
  readonly tokens: TokenReader | undefined
  readonly #request: Buffer
  readonly #socket: Socket
  readonly #onEnd: OnEnd
  #isCalling = false
  /** Bytes before the end of the answer's head; undefined once it was read. */
  #head: Buffer | undefined
  /** Bytes of the body that are to come; -1 of a chunked one. */
  #left = 0
  #isInBody = false
  /** The last bytes of a chunked body. */
  #last: Buffer = Buffer.alloc(0)

  constructor(order: LoadOrder, onEnd: OnEnd) {
    const { hostname, port, host } = new URL(order.origin)
    const body = Buffer.from(order.body, 'base64')
    const headers = Object.entries({ host, ...order.headers, 'content-length': String(body.length) })
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
    this.#request = Buffer.concat([Buffer.from(`POST ${order.path} HTTP/1.1\r\n${lines}\r\n`), body])
    this.#onEnd = onEnd
    this.tokens = order.tokens === undefined ? undefined : new TokenReader()
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true })
    this.#socket.setTimeout(callTimeoutMs, () => this.#socket.destroy(new Error('no answer in time')))
    this.#socket.on('error', (error) => this.#end(String(error)))
    this.#socket.on('close', () => this.#end('the connection was closed'))
    this.#socket.on('data', (chunk: Buffer) => this.#take(chunk))
  }

  send(): void {
    this.#isCalling = true
    this.#isInBody = false
    this.#head = undefined
    this.tokens?.reset()
    this.#socket.write(this.#request)
  }

  close(): void {
    this.#isCalling = false
    this.#socket.destroy()
  }

  #take(chunk: Buffer): void {
    if (this.#isInBody) this.#takeBody(chunk)
    else this.#takeHead(chunk)
  }

  #takeHead(chunk: Buffer): void {
    const bytes = this.#head === undefined ? chunk : Buffer.concat([this.#head, chunk])
    const end = bytes.indexOf(headEnd)
    if (end < 0) {
      this.#head = bytes
      return
    }
    if (!bytes.subarray(0, ok.length).equals(ok)) {
      this.#end(bytes.toString('utf8', 0, 2_000))
      return
    }
    this.#isInBody = true
    this.#left = bodyLength(bytes, end)
    this.#last = Buffer.alloc(0)
    this.#takeBody(bytes.subarray(end + headEnd.length))
  }

  #takeBody(bytes: Buffer): void {
    this.tokens?.take(bytes)
    if (this.#left >= 0) {
      this.#left -= bytes.length
      if (this.#left <= 0) this.#end(this.#left < 0 ? 'an answer is longer than it says' : undefined)
      return
    }
    this.#last = Buffer.concat([this.#last, bytes.subarray(-64)]).subarray(-64)
    if (!this.#last.subarray(-lastChunk.length).equals(lastChunk)) return
    const isCut = this.tokens !== undefined && !this.#last.includes(done)
    this.#end(isCut ? `a stream ended with ${this.#last.toString()}` : undefined)
  }

  #end(failure: string | undefined): void {
    if (!this.#isCalling) return
    this.#isCalling = false
    this.#onEnd(failure)
  }
}

function bodyLength(bytes: Buffer, headLength: number): number {
  const at = bytes.indexOf(lengthField)
  if (at >= 0 && at < headLength) return Number.parseInt(bytes.toString('latin1', at + lengthField.length, at + 36), 10)
  const field = /\r\ncontent-length: *(\d+)/i.exec(bytes.toString('latin1', 0, headLength))
  return field === null ? -1 : Number(field[1])
}
