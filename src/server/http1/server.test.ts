import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import type { Exchange } from '../exchange.ts'
import { until } from '../fixture.ts'
import { createHttp1Server, type Http1Server } from './server.ts'

const requests = {
  'the own server': 'GET / HTTP/1.1\r\nhost: x\r\n\r\n',
  // A tab is right in a value, and not simple.
  "Node's server": 'GET / HTTP/1.1\r\nhost: x\r\na: b\tc\r\n\r\n',
}

let http1: Http1Server
let listener: Server
let handled: Exchange[]
let isLeaving: boolean

beforeEach(async () => {
  handled = []
  isLeaving = false
  const log = pino({ level: 'silent' })
  const options = { headersTimeoutMs: 10_000, bodyTimeoutMs: 10_000, keepAliveMs: 10_000, log }
  http1 = createHttp1Server(
    options,
    () => isLeaving,
    (exchange) => handled.push(exchange),
  )
  listener = createServer((socket) => http1.serve(socket.on('error', () => {})))
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  http1.start()
})
afterEach(async () => {
  http1.close()
  listener.close()
  await once(listener, 'close')
})

interface Caller {
  readonly socket: Socket
  received: string
}

async function call(request: string): Promise<Caller> {
  const { port } = listener.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  const caller = { socket, received: '' }
  socket.setEncoding('latin1').on('data', (text: string) => {
    caller.received += text
  })
  const before = handled.length
  socket.write(request)
  await until(() => handled.length === before + 1)
  return caller
}

async function answer(exchange: Exchange | undefined): Promise<void> {
  exchange?.head(200, new AnswerHeaders(['content-length', '2']), false)
  exchange?.end(Buffer.from('ok'))
  await exchange?.left()
}

test.each(Object.entries(requests))(
  'of %s idle connections are closed, and those with a call are not',
  async (_, request) => {
    const idle = await call(request)
    await answer(handled[0])
    await until(() => idle.received.endsWith('ok'))
    const busy = await call(request)
    http1.closeIdle()
    await once(idle.socket, 'close')
    await answer(handled[1])
    await until(() => busy.received.endsWith('ok'))
    busy.socket.destroy()
  },
)

test.each(Object.entries(requests))(
  '%s ends connections with an answer that says so when it is leaving',
  async (_, request) => {
    isLeaving = true
    const caller = await call(request)
    await answer(handled[0])
    await until(() => caller.received.endsWith('ok'))
    expect(caller.received).toContain('\r\nconnection: close\r\n')
    await once(caller.socket, 'close')
  },
)

test('a request that stops is handed over after a while, and read on', async () => {
  const { port } = listener.address() as AddressInfo
  const socket = connect(port, '127.0.0.1').setNoDelay()
  socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab')
  await until(() => handled.length === 1)
  const [exchange] = handled
  expect(exchange?.isBodyOver).toBe(false)
  socket.write('cd')
  expect(Buffer.concat((await exchange?.body.toArray()) ?? []).toString()).toBe('abcd')
  socket.destroy()
  await until(() => exchange?.isGone === true)
})

test('a request that stops while idle connections are closed is handed over all the same', async () => {
  const { port } = listener.address() as AddressInfo
  const socket = connect(port, '127.0.0.1').setNoDelay()
  const [served] = await once(listener, 'connection')
  socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab')
  await until(() => served.bytesRead > 0)
  http1.closeIdle()
  await until(() => handled.length === 1)
  socket.destroy()
})

test('of a call that began before the server was leaving the connection ends with its answer', async () => {
  const caller = await call(requests['the own server'])
  handled[0]?.head(200, new AnswerHeaders(), false)
  handled[0]?.write(Buffer.from('o'))
  isLeaving = true
  handled[0]?.end(Buffer.from('k'))
  await once(caller.socket, 'close')
  expect(caller.received.endsWith('0\r\n\r\n')).toBe(true)
})

test('a connection that ends within a request is told that this is none', async () => {
  const { port } = listener.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk
  })
  socket.end('GET / HTTP/1.1\r\nhost: x\r\n')
  await once(socket, 'close')
  expect(received).toBe('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
})
