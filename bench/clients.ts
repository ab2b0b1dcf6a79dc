import { connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import type { Client, LoadOrder } from './orders.ts'

const callTimeoutMs = 30_000

/**
 * HTTP/1.1 over one keep-alive connection, one call at a time, on a bare socket: undici would cost the load generator
 * about as much as the gate's whole answer costs a lean server, and the two share a core with the backend.
 */
export function connectHttp1(order: LoadOrder): Client {
  const { hostname, port, host } = new URL(order.origin)
  const body = Buffer.from(order.body, 'base64')
  const headers = Object.entries({ host, ...order.headers, 'content-length': String(body.length) })
  const head = `POST ${order.path} HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
  const request = Buffer.concat([Buffer.from(head), body])
  let received: Buffer | undefined
  let pending: { resolve: () => void; reject: (error: Error) => void } | undefined

  const fail = (error: Error): void => {
    pending?.reject(error)
    pending = undefined
  }
  const socket: Socket = connect({ host: hostname, port: Number(port), noDelay: true })
  socket.setTimeout(callTimeoutMs, () => socket.destroy(new Error('no answer in time')))
  socket.on('error', fail)
  socket.on('close', () => fail(new Error('the connection was closed')))
  socket.on('data', (chunk: Buffer) => {
    received = received === undefined ? chunk : Buffer.concat([received, chunk])
    if (!isWhole(received)) return
    const answer = received
    received = undefined
    if (answer.toString('latin1', 9, 12) !== '200') fail(new Error(answer.toString('utf8', 0, 2_000)))
    pending?.resolve()
    pending = undefined
  })
  return {
    call: () =>
      new Promise((resolve, reject) => {
        pending = { resolve, reject }
        socket.write(request)
      }),
    close: () => socket.destroy(),
  }
}

/** True when an answer has all its body, by its length or its last chunk. */
function isWhole(answer: Buffer): boolean {
  const end = answer.indexOf('\r\n\r\n')
  if (end < 0) return false
  const head = answer.toString('latin1', 0, end).toLowerCase()
  const field = head.indexOf('\r\ncontent-length:')
  if (field < 0) return answer.subarray(-5).toString('latin1') === '0\r\n\r\n'
  return answer.length >= end + 4 + Number.parseInt(head.slice(field + 17), 10)
}

/** gRPC unary over one HTTP/2 connection that all callers share, on node:http2 without a client library. */
export function connectGrpc(order: LoadOrder): Client {
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
    call: () =>
      new Promise((resolve, reject) => {
        if (broken !== undefined) throw broken
        const stream = session.request(headers)
        let status: string | undefined
        let text = ''
        const read = (fields: Record<string, unknown>): void => {
          if (typeof fields['grpc-status'] === 'string') status = fields['grpc-status']
          if (typeof fields['grpc-message'] === 'string') text = fields['grpc-message']
        }
        stream.on('response', read)
        stream.on('trailers', read)
        stream.on('data', ignore)
        stream.on('error', reject)
        stream.on('close', () => {
          if (status === '0') resolve()
          else reject(new Error(`grpc-status ${status}: ${text}`))
        })
        stream.setTimeout(callTimeoutMs, () => stream.destroy(new Error('no answer in time')))
        stream.end(frame)
      }),
    close: () => session.destroy(),
  }
}

function ignore(): void {}
