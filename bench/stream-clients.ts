import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import type { StreamClient, StreamOrder, StreamTimes } from './stream-orders.ts'

const streamTimeoutMs = 60_000
/** An event with a token of the practice backend has it. */
const tokenMark = Buffer.from('"delta":{"content":"')

/** Counts tokens as their bytes arrive, wherever they are cut: only the time of the first and the last matters. */
class TokenClock {
  #tail: Buffer = Buffer.alloc(0)
  #firstMs = 0
  #lastMs = 0
  tokens = 0

  take(chunk: Buffer): void {
    const bytes = this.#tail.length === 0 ? chunk : Buffer.concat([this.#tail, chunk])
    let end = 0
    for (let at = bytes.indexOf(tokenMark); at >= 0; at = bytes.indexOf(tokenMark, end)) {
      this.tokens += 1
      end = at + tokenMark.length
    }
    if (end > 0) {
      this.#lastMs = performance.now()
      if (this.#firstMs === 0) this.#firstMs = this.#lastMs
    }
    this.#tail = bytes.subarray(Math.max(end, bytes.length - tokenMark.length + 1))
  }

  times(): StreamTimes {
    return { firstMs: this.#firstMs, lastMs: this.#lastMs, tokens: this.tokens }
  }
}

/** Server-sent events over one keep-alive HTTP/1.1 connection on a bare socket. */
export function connectSse(order: StreamOrder): StreamClient {
  const { hostname, port, host } = new URL(order.origin)
  const body = Buffer.from(order.body, 'base64')
  const headers = Object.entries({ host, ...order.headers, 'content-length': String(body.length) })
  const head = `POST ${order.path} HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
  const request = Buffer.concat([Buffer.from(head), body])
  let clock = new TokenClock()
  let last: Buffer = Buffer.alloc(0)
  let pending: { resolve: (times: StreamTimes) => void; reject: (error: Error) => void } | undefined

  const fail = (error: Error): void => {
    pending?.reject(error)
    pending = undefined
  }
  const socket = connect({ host: hostname, port: Number(port), noDelay: true })
  socket.setTimeout(streamTimeoutMs, () => socket.destroy(new Error('no answer in time')))
  socket.on('error', fail)
  socket.on('close', () => fail(new Error('the connection was closed')))
  socket.on('data', (chunk: Buffer) => {
    clock.take(chunk)
    last = Buffer.concat([last, chunk]).subarray(-256)
    if (!last.subarray(-5).equals(lastChunk)) return
    if (!last.includes('[DONE]')) return fail(new Error(`a stream ended with ${last.toString()}`))
    pending?.resolve(clock.times())
    pending = undefined
  })
  return {
    stream: () =>
      new Promise((resolve, reject) => {
        clock = new TokenClock()
        last = Buffer.alloc(0)
        pending = { resolve, reject }
        socket.write(request)
      }),
    close: () => socket.destroy(),
  }
}

const lastChunk = Buffer.from('0\r\n\r\n')

/** gRPC server streaming over one HTTP/2 connection that all callers share. */
export function connectGrpcStreams(order: StreamOrder): StreamClient {
  const session = connectHttp2(order.origin, { settings: { enablePush: false, initialWindowSize: 1 << 20 } })
  const message = Buffer.from(order.body, 'base64')
  const frame = Buffer.alloc(5 + message.length)
  frame.writeUInt32BE(message.length, 1)
  message.copy(frame, 5)
  const headers = {
    ':method': 'POST',
    ':path': order.path,
    'content-type': 'application/grpc+proto',
    te: 'trailers',
    ...order.headers,
  }
  let broken: Error | undefined
  session.on('error', (error) => {
    broken = error
  })
  return {
    stream: () =>
      new Promise((resolve, reject) => {
        if (broken !== undefined) throw broken
        const clock = new TokenClock()
        const stream = session.request(headers)
        let status: unknown
        let text: unknown
        const read = (fields: Record<string, unknown>): void => {
          status = fields['grpc-status'] ?? status
          text = fields['grpc-message'] ?? text
        }
        stream.on('response', read)
        stream.on('trailers', read)
        stream.on('data', (chunk: Buffer) => clock.take(chunk))
        stream.on('error', reject)
        stream.on('close', () => {
          if (status === '0') resolve(clock.times())
          else reject(new Error(`grpc-status ${status}: ${text}`))
        })
        stream.setTimeout(streamTimeoutMs, () => stream.destroy(new Error('no answer in time')))
        stream.end(frame)
      }),
    close: () => session.destroy(),
  }
}
