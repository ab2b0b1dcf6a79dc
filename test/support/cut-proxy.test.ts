import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type CutProxy, startCutProxy } from './cut-proxy.ts'
import { eventually } from './eventually.ts'

const mebibyte = Buffer.alloc(1 << 20, 'x')
const callers: Socket[] = []
let accepted: Socket[]
let server: Server
let proxy: CutProxy
let port: number

/** Sends back what it gets, and ends when its caller does. */
async function startEcho(): Promise<void> {
  accepted = []
  server = createServer((socket) => {
    accepted.push(socket)
    socket.on('error', () => {})
    socket.pipe(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  port = address.port
}

async function stopEcho(): Promise<void> {
  for (const socket of accepted) socket.destroy()
  server.close()
  await once(server, 'close')
}

beforeEach(async () => {
  await startEcho()
  proxy = await startCutProxy({ upstream: () => ({ host: '127.0.0.1', port }) })
})

afterEach(async () => {
  for (const caller of callers.splice(0)) caller.destroy()
  await proxy.close()
  await stopEcho()
})

function dial(to = proxy.port): Socket {
  const socket = connect({ host: '127.0.0.1', port: to, noDelay: true })
  callers.push(socket)
  return socket
}

async function call(to?: number): Promise<Socket> {
  const socket = dial(to)
  await once(socket, 'connect')
  return socket
}

async function say(socket: Socket, word: string): Promise<string> {
  socket.write(word)
  const [chunk]: unknown[] = await once(socket, 'data')
  return String(chunk)
}

/** Code of the error that ends the connection. */
async function failure(socket: Socket): Promise<unknown> {
  const [error]: unknown[] = await once(socket, 'error')
  return error instanceof Error && 'code' in error ? error.code : error
}

test('passes bytes and the end of both directions', async () => {
  const caller = await call()
  caller.end('whole')
  expect(await text(caller)).toBe('whole')
  await eventually(() => proxy.connections() === 0)
})

test('a cut resets the caller and the server, and spares who comes next', async () => {
  const caller = await call()
  expect(await say(caller, 'a')).toBe('a')
  const [served] = accepted
  if (served === undefined) throw new Error('nobody was served')
  const both = Promise.all([failure(caller), failure(served)])
  proxy.cut()
  expect(await both).toEqual(['ECONNRESET', 'ECONNRESET'])
  expect(proxy.connections()).toBe(0)
  expect(await say(await call(), 'b')).toBe('b')
})

test('refuses new connections and keeps those that are open, until it is healed', async () => {
  const before = await call()
  expect(await say(before, 'a')).toBe('a')
  proxy.refuse()
  expect(await failure(dial())).toBe('ECONNRESET')
  expect(await say(before, 'b')).toBe('b')
  proxy.heal()
  expect(await say(await call(), 'c')).toBe('c')
  expect([await say(before, 'd'), await say(before, 'e')]).toEqual(['d', 'e'])
})

test('a stall lets nothing pass, of old connections or new ones, and loses nothing', async () => {
  const old = await call()
  expect(await say(old, 'a')).toBe('a')
  proxy.stall()
  const heard: string[] = []
  const young = await call()
  for (const [socket, word] of [
    [old, 'old'],
    [young, 'new'],
  ] as const) {
    socket.on('data', (chunk) => heard.push(String(chunk)))
    socket.write(word)
  }
  // Another way to the same server shows that it answers in the meantime.
  const direct = await call(port)
  for (let count = 0; count < 100; count += 1) expect(await say(direct, 'd')).toBe('d')
  expect([heard, accepted.length]).toEqual([[], 2])
  proxy.heal()
  await eventually(() => heard.length === 2)
  expect(heard.sort()).toEqual(['new', 'old'])
})

test('holds back who writes faster than is read', async () => {
  const caller = await call()
  expect(await say(caller, 'a')).toBe('a')
  proxy.stall()
  const most = 64
  let passed = 0
  for (let count = 0; count < most; count += 1) caller.write(mebibyte, () => (passed += 1))
  // The proxy shares this process: it had every chance to read more meanwhile.
  const direct = await call(port)
  for (let count = 0; count < 1_000; count += 1) await say(direct, 'd')
  expect(passed).toBeLessThan(most / 2)
  proxy.heal()
  let received = 0
  caller.on('data', (chunk: Buffer) => (received += chunk.length))
  await eventually(() => received === most * mebibyte.length)
})

test('a server that is away ends its callers, and is found again when it is back', async () => {
  await stopEcho()
  expect(await failure(dial())).toBe('ECONNRESET')
  await startEcho()
  expect(await say(await call(), 'back')).toBe('back')
})

test('closes while it is stalled and while callers are connected', async () => {
  const caller = await call()
  proxy.stall()
  const ended = failure(caller)
  await proxy.close()
  expect(await ended).toBe('ECONNRESET')
  await proxy.close()
})
