import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { Http1Transport } from './http1-transport.ts'
import type { TransportController } from './transport.ts'

let backend: Server
let answer: (request: IncomingMessage, response: ServerResponse) => void
let sockets: Set<Socket>
let mostSockets: number
let transport: Http1Transport

beforeEach(async () => {
  sockets = new Set()
  mostSockets = 0
  answer = (_, response) => response.end('answer')
  backend = createServer((request, response) => {
    request.resume().on('end', () => answer(request, response))
  })
  backend.on('connection', (socket) => {
    sockets.add(socket)
    mostSockets = Math.max(mostSockets, sockets.size)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(backend.address() as AddressInfo).port}`
  transport = new Http1Transport({ origin, connectTimeoutMs: 2_000, maxConnections: 2 })
})

afterEach(async () => {
  backend.closeAllConnections()
  await transport.close()
  await new Promise((resolve) => backend.close(resolve))
})

/** What was told of a call; `over` resolves with the last word. */
interface Told {
  readonly over: Promise<string>
  /** How often it was told that it is over. */
  ends: number
  controller: TransportController | undefined
}

function call(path = '/'): Told {
  const over = Promise.withResolvers<string>()
  const told: Told = { over: over.promise, ends: 0, controller: undefined }
  let body = ''
  const end = (word: string): void => {
    told.ends += 1
    over.resolve(word)
  }
  transport.dispatch(
    { path, method: 'POST', headers: { 'x-path': path }, body: Buffer.from('body') },
    {
      onRequestStart(controller) {
        told.controller = controller
      },
      onResponseStart: () => {},
      onResponseData(_, chunk) {
        body += chunk.toString()
      },
      onResponseEnd: () => end(body),
      onResponseError: (_, error) => end('code' in error ? String(error.code) : error.message),
    },
  )
  return told
}

/** Holds answers back; each is given by calling what was pushed. */
function hold(): (() => void)[] {
  const held: (() => void)[] = []
  answer = (request, response) => held.push(() => response.end(request.url))
  return held
}

test('calls beyond the connections wait, and go out in their order when one is free', async () => {
  const held = hold()
  const calls = ['/1', '/2', '/3', '/4'].map((path) => call(path))
  await eventually(() => held.length === 2)
  expect(transport.isFull).toBe(true)
  for (let n = 0; n < 4; n += 1) {
    await eventually(() => held.length > n)
    held[n]?.()
    expect(await calls[n]?.over).toBe(`/${n + 1}`)
  }
  expect(mostSockets).toBe(2)
  expect(transport.isFull).toBe(false)
})

test('one call after the other keeps one connection', async () => {
  for (let n = 0; n < 20; n += 1) expect(await call().over).toBe('answer')
  expect(mostSockets).toBe(1)
  expect(sockets.size).toBe(1)
})

test.each<[string, (response: ServerResponse) => void]>([
  ['resets it', (response) => response.socket?.resetAndDestroy()],
  [
    'cuts its answer',
    (response) => response.writeHead(200, { 'content-length': 9 }).write('x', () => response.destroy()),
  ],
  ['closes its connection', (response) => response.writeHead(200, { connection: 'close' }).end('x')],
])('a backend that %s leaves its place to the call that waits', async (_, end) => {
  answer = (request, response) => (request.url === '/bad' ? end(response) : response.end('answer'))
  const calls = Array.from({ length: 30 }, (_, n) => call(n % 3 === 0 ? '/bad' : '/good'))
  const words = await Promise.all(calls.map(({ over }) => over))
  expect(words.filter((_, n) => n % 3 !== 0)).toEqual(Array(20).fill('answer'))
  expect(mostSockets).toBeLessThanOrEqual(2)
  expect(calls.map(({ ends }) => ends)).toEqual(Array(30).fill(1))
})

test('a call that is aborted leaves its place to the one that waits', async () => {
  const held = hold()
  const calls = ['/1', '/2', '/3'].map((path) => call(path))
  await eventually(() => held.length === 2)
  calls[0]?.controller?.abort(new Error('gave up'))
  expect(await calls[0]?.over).toBe('gave up')
  await eventually(() => held.length === 3)
  for (const give of held) give()
  expect(await Promise.all(calls.slice(1).map(({ over }) => over))).toEqual(['/2', '/3'])
})

test('without a backend every call fails, and with it again every call succeeds', async () => {
  const { port } = backend.address() as AddressInfo
  await new Promise((resolve) => backend.close(resolve))
  const words = await Promise.all(Array.from({ length: 9 }, () => call().over))
  expect(words).toEqual(Array(9).fill('ECONNREFUSED'))
  expect(transport.isFull).toBe(false)
  await new Promise<void>((resolve) => backend.listen(port, '127.0.0.1', resolve))
  expect(await Promise.all(Array.from({ length: 9 }, () => call().over))).toEqual(Array(9).fill('answer'))
})

test('connections that the backend closed while they were idle are no harm to the next calls', async () => {
  for (let n = 0; n < 5; n += 1) {
    expect(await Promise.all([call().over, call().over])).toEqual(['answer', 'answer'])
    backend.closeIdleConnections()
    await eventually(() => sockets.size === 0)
  }
})

test('calls that wait for a connection which does not come about are not counted as running', async () => {
  const { port } = backend.address() as AddressInfo
  await new Promise((resolve) => backend.close(resolve))
  const calls = Array.from({ length: 3 }, () => call())
  expect(transport.isFull).toBe(false)
  await Promise.all(calls.map(({ over }) => over))
  await new Promise<void>((resolve) => backend.listen(port, '127.0.0.1', resolve))
})

test('ends when the calls that run do, and fails those that wait', async () => {
  const held = hold()
  const calls = ['/1', '/2', '/3'].map((path) => call(path))
  await eventually(() => held.length === 2)
  let isClosed = false
  const closing = transport.close().then(() => {
    isClosed = true
  })
  expect(await calls[2]?.over).toBe('UND_ERR_CLOSED')
  expect(await call().over).toBe('UND_ERR_CLOSED')
  expect(isClosed).toBe(false)
  for (const give of held) give()
  await closing
  expect(await Promise.all(calls.slice(0, 2).map(({ over }) => over))).toEqual(['/1', '/2'])
  await eventually(() => sockets.size === 0)
})
