import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates, type TLSSocket } from 'node:tls'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { createTestCa, selfSigned } from '../../test/support/test-ca.ts'
import { Http1Transport } from './http1-transport.ts'
import type { TransportController, TransportRequest } from './transport.ts'

/** A connection as the backend sees it. */
interface Seen {
  readonly socket: Socket
  /** All that came on it. */
  text: string
}

let server: Server
let seen: Seen[]
/** What the backend does with each request that came whole. */
let answer: (socket: Socket, number: number) => void
let transport: Http1Transport

const whole = (body: string, fields = ''): string =>
  `HTTP/1.1 200 OK\r\n${fields}content-length: ${body.length}\r\n\r\n${body}`

beforeEach(async () => {
  seen = []
  answer = (socket) => socket.write(whole('answer'))
  server = createServer(onConnection)
  transport = new Http1Transport({ origin: await listen(), connectTimeoutMs: 2_000, maxConnections: 4 })
})

afterEach(async () => {
  vi.useRealTimers()
  for (const { socket } of seen) socket.destroy()
  await transport.close()
  await new Promise((resolve) => server.close(resolve))
})

async function listen(host = '127.0.0.1'): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return `http://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`
}

function onConnection(socket: Socket): void {
  const connection: Seen = { socket, text: '' }
  seen.push(connection)
  let answered = 0
  socket.setNoDelay(true).on('error', () => {})
  socket.on('data', (part) => {
    connection.text += part.toString('latin1')
    if (connection.text.split('\r\n\r\nbody').length - 1 <= answered) return
    answered += 1
    answer(socket, answered)
  })
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

function call(changes: Partial<TransportRequest> = {}, onStart?: Hook, onData?: Hook): Told {
  const over = Promise.withResolvers<string>()
  const told: Told = { over: over.promise, controller: undefined, status: 0, body: '', ends: 0 }
  const end = (word: string): void => {
    told.ends += 1
    over.resolve(word)
  }
  transport.dispatch(
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

describe('a request', () => {
  test('goes out as it should stand on the wire', async () => {
    expect(await call({ headers: { 'content-type': 'application/json', 'x-a': 'caf\xe9' } }).over).toBe('answer')
    const { port } = server.address() as AddressInfo
    expect(seen.map(({ text }) => text)).toEqual([
      `POST /path?a=b HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nconnection: keep-alive\r\n` +
        'content-type: application/json\r\nx-a: caf\xe9\r\ncontent-length: 4\r\n\r\nbody',
    ])
  })

  test('without a body says so', async () => {
    answer = () => {}
    const told = call({ body: Buffer.alloc(0) })
    await eventually(() => seen[0]?.text.endsWith('content-length: 0\r\n\r\n'))
    seen[0]?.socket.write(whole('answer'))
    expect(await told.over).toBe('answer')
  })

  test.each([[1_000], [65_536], [65_537], [4_000_000]])('with %i bytes more arrives whole', async (bytes) => {
    const body = Buffer.concat([Buffer.from('body'), Buffer.alloc(bytes, 'abc')])
    answer = () => {}
    const told = call({ body })
    await eventually(() => seen[0]?.text.endsWith(`content-length: ${body.length}\r\n\r\n${body}`))
    seen[0]?.socket.write(whole('answer'))
    expect(await told.over).toBe('answer')
  })

  test.each<[string, Partial<TransportRequest>]>([
    ['CRLF in a value', { headers: { a: 'b\r\nx: y' } }],
    ['LF in a value', { headers: { a: 'b\nx: y' } }],
    ['CR at the end of a value', { headers: { a: 'b\r' } }],
    ['NUL in a value', { headers: { a: 'b\0' } }],
    ['what Latin-1 would make CRLF of', { headers: { a: 'b\u010d\u010ax: y' } }],
    ['CRLF in a name', { headers: { 'a\r\nb': 'c' } }],
    ['a colon in a name', { headers: { 'a:b': 'c' } }],
    ['a blank in a name', { headers: { 'a ': 'c' } }],
    ['no name', { headers: { '': 'c' } }],
    ['a length of its own', { headers: { 'content-length': '1' } }],
    ['a coding', { headers: { 'transfer-encoding': 'chunked' } }],
    ['a host of its own', { headers: { host: 'elsewhere' } }],
    ['one in capitals', { headers: { Host: 'elsewhere' } }],
    ['a connection of its own', { headers: { connection: 'close' } }],
    ['CRLF in the path', { path: '/a\r\nb: c' }],
    ['a blank in the path', { path: '/a HTTP/1.1' }],
    ['a path that is none', { path: 'a' }],
  ])('with %s is not sent', async (_, changes) => {
    expect(await call(changes).over).toMatch(/^no connection: .* (cannot have|of a request)/)
    expect(seen).toEqual([])
  })

  test('to an IPv6 address names it in brackets', async () => {
    await new Promise((resolve) => server.close(resolve))
    server = createServer(onConnection)
    const origin = await listen('::1')
    transport = new Http1Transport({ origin, connectTimeoutMs: 2_000, maxConnections: 1 })
    expect(await call().over).toBe('answer')
    expect(seen[0]?.text).toContain(`\r\nhost: ${origin.slice('http://'.length)}\r\n`)
  })
})

describe('a connection', () => {
  const kept: readonly (readonly [string, string])[] = [
    ['a counted answer', whole('answer')],
    ['chunks', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\n\r\n'],
    ['an interim answer', `HTTP/1.1 103 Early Hints\r\n\r\n${whole('answer')}`],
    ['HTTP/1.0 that keeps it', `HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 6\r\n\r\nanswer`],
  ]

  test.each(kept)('is kept after %s', async (_, text) => {
    answer = (socket) => socket.write(text)
    for (let n = 0; n < 3; n += 1) expect(await call().over).toBe('answer')
    answer = (socket) => {
      for (const char of text) socket.write(char)
    }
    for (let n = 0; n < 3; n += 1) expect(await call().over).toBe('answer')
    expect(seen).toHaveLength(1)
  })

  test.each([
    ['an answer that says so', whole('answer', 'connection: close\r\n')],
    ['an answer of HTTP/1.0', 'HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nanswer'],
    ['an answer with more behind it', `${whole('answer')}H`],
    ['a backend that keeps it for too short a time', whole('answer', 'keep-alive: timeout=2\r\n')],
  ])('is given up after %s', async (_, text) => {
    answer = (socket) => socket.write(text)
    for (let n = 1; n <= 3; n += 1) {
      expect(await call().over).toBe('answer')
      await eventually(() => seen[n - 1]?.socket.destroyed)
      expect(seen).toHaveLength(n)
    }
  })

  test.each([
    ['no answer', '{"error":"no"}\r\n\r\n', 'no status line'],
    ['two ways to read it', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n', 'has both'],
    ['a head without an end', `HTTP/1.1 200 OK\r\na: ${'b'.repeat(20_000)}`, 'more than 16384 bytes'],
    ['a broken chunk', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n', 'size of a chunk'],
  ])('that brings %s fails its call and is given up', async (_, text, why) => {
    answer = (socket) => socket.write(text)
    const told = call()
    expect(await told.over).toContain(why)
    expect(told.ends).toBe(1)
    await eventually(() => seen[0]?.socket.destroyed)
    answer = (socket) => socket.write(whole('answer'))
    expect(await call().over).toBe('answer')
    expect(seen).toHaveLength(2)
  })

  test('that ends within a counted answer fails its call', async () => {
    answer = (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')
    expect(await call().over).toContain('the connection ended before')
  })

  test('whose end is that of the answer ends it; a reset does not', async () => {
    const text = 'HTTP/1.1 200 OK\r\n\r\nanswer'
    answer = (socket) => socket.end(text)
    expect(await call().over).toBe('answer')
    answer = (socket) => socket.write(text)
    const told = call()
    await eventually(() => told.body === 'answer')
    seen[1]?.socket.resetAndDestroy()
    expect(await told.over).toContain('ECONNRESET')
  })

  test('on which more comes while it is idle is given up: that is nobody’s answer', async () => {
    expect(await call().over).toBe('answer')
    seen[0]?.socket.write(whole('forged'))
    await eventually(() => seen[0]?.socket.destroyed)
    expect(await call().over).toBe('answer')
    expect(seen).toHaveLength(2)
  })

  test.each<[string, (socket: Socket) => void]>([
    ['bytes that nobody asked for', (socket) => socket.write(whole('forged'))],
    ['the end', (socket) => socket.end()],
    ['a reset', (socket) => socket.resetAndDestroy()],
  ])('that has brought %s when a call wants it is passed over, and the call goes out on another', async (_, bring) => {
    expect(await call().over).toBe('answer')
    for (let n = 0; n < 5; n += 1) {
      // Of a timer: the loop looks at its sockets before it comes to what was put off to the end of its turn.
      await delay(1)
      const last = seen.at(-1)
      if (last !== undefined) bring(last.socket)
      const told = call()
      expect(await told.over).toBe('answer')
      expect(told.ends).toBe(1)
    }
    for (const { text } of seen) expect(text.match(/POST/g)).toHaveLength(1)
  })

  test('that fails when its request is out fails its call, which nobody sends again', async () => {
    expect(await call().over).toBe('answer')
    answer = (socket) => socket.destroy()
    expect(await call().over).toMatch(/closed|ended/)
    expect(seen).toHaveLength(1)
    expect(seen[0]?.text.match(/POST/g)).toHaveLength(2)
  })

  test('whose answer comes before the request is out is given up', async () => {
    server.removeAllListeners('connection')
    server.on('connection', (socket) => {
      seen.push({ socket, text: '' })
      socket.on('error', () => {})
      socket.once('data', () => socket.pause().write(whole('too large')))
    })
    const told = call({ body: Buffer.alloc(64_000_000) })
    expect(await told.over).toBe('too large')
    expect(await call().over).toBe('too large')
    expect(seen).toHaveLength(2)
  })

  test('is kept while the backend says, less two seconds, and four seconds where it says nothing', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    for (const [fields, keptMs] of [
      ['keep-alive: timeout=60\r\n', 58_000],
      ['', 4_000],
      ['keep-alive: timeout=7200\r\n', 600_000],
    ] as const) {
      const before = seen.length
      answer = (socket) => socket.write(whole('answer', fields))
      await call().over
      const connections = seen.length
      expect(connections - before).toBeLessThanOrEqual(1)
      vi.advanceTimersByTime(keptMs - 1)
      await call().over
      expect(seen).toHaveLength(connections)
      vi.advanceTimersByTime(keptMs)
      await call().over
      expect(seen).toHaveLength(connections + 1)
    }
  })

  test('that its backend is about to close is not for the call that waits', async () => {
    answer = (socket) => socket.write(whole('answer', 'keep-alive: timeout=2\r\n'))
    const calls = Array.from({ length: 8 }, () => call())
    for (const { over } of calls) expect(await over).toBe('answer')
    for (const { text } of seen) expect(text.match(/POST/g)).toHaveLength(1)
  })

  test('is closed with the others when its call is over, however long it would be kept', async () => {
    answer = (socket) => socket.write(whole('answer', 'keep-alive: timeout=60\r\n'))
    await call().over
    answer = () => {}
    const running = call()
    await eventually(() => seen[0]?.text.match(/POST/g)?.length === 2)
    const closed = transport.close()
    seen[0]?.socket.write(whole('answer', 'keep-alive: timeout=60\r\n'))
    expect(await running.over).toBe('answer')
    await closed
    await eventually(() => seen[0]?.socket.destroyed)
  })

  test('that was idle for long enough is closed, whether there is another call or not', async () => {
    answer = (socket) => socket.write(whole('answer', 'keep-alive: timeout=3\r\n'))
    await call().over
    await eventually(() => seen[0]?.socket.destroyed)
  })
})

describe('a call', () => {
  test('that is aborted within its answer is told so once, and ends its connection', async () => {
    answer = (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')
    const told = call()
    await eventually(() => told.body === 'x')
    told.controller?.abort(new Error('gave up'))
    told.controller?.abort(new Error('once more'))
    expect(await told.over).toBe('gave up')
    await eventually(() => seen[0]?.socket.destroyed)
    expect(told.ends).toBe(1)
  })

  test('that is aborted when it is about to go out leaves its connection to the next one', async () => {
    const told = call({}, (controller) => controller.abort(new Error('too late')))
    expect(await told.over).toBe('too late')
    expect(await call().over).toBe('answer')
    expect(seen).toHaveLength(1)
    expect(seen[0]?.text.match(/POST/g)).toHaveLength(1)
  })

  test('that is over has no say in the next one on its connection', async () => {
    const first = call()
    await first.over
    answer = (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nans')
    const second = call()
    await eventually(() => second.body === 'ans')
    first.controller?.pause()
    first.controller?.abort(new Error('gave up'))
    seen[0]?.socket.write('wer')
    expect(await second.over).toBe('answer')
  })

  test('makes the backend wait, gets everything then, and leaves a connection that is read', async () => {
    const part = Buffer.alloc(1_000_000, 'x')
    const parts = 64
    let written = 0
    answer = (socket, number) => {
      if (number > 1) {
        socket.write(whole('answer'))
        return
      }
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${part.length * parts}\r\n\r\n`)
      const more = (): void => {
        while (written < parts) {
          written += 1
          if (!socket.write(part)) break
        }
      }
      socket.on('drain', more)
      more()
    }
    const told = call()
    await eventually(() => told.body.length > 0)
    told.controller?.pause()
    // Until nothing moves any more.
    let before = -1
    await eventually(() => {
      const isStill = before === told.body.length
      before = told.body.length
      return isStill
    })
    expect(written).toBeLessThan(parts)
    told.controller?.resume()
    expect((await told.over).length).toBe(part.length * parts)
    expect(await call().over).toBe('answer')
    expect(seen).toHaveLength(1)
  })

  test('that is over while the backend waits leaves a connection that is read', async () => {
    const told = call({}, undefined, (controller) => controller.pause())
    expect(await told.over).toBe('answer')
    expect(await call().over).toBe('answer')
    expect(seen).toHaveLength(1)
  })
})

describe('over TLS', () => {
  const ca = createTestCa()
  const trusted = getCACertificates('default')
  let sockets: TLSSocket[]
  /** Asked for by clients. */
  let names: string[]

  async function secure({ cert, key }: { cert: string; key: string }, host = '127.0.0.1'): Promise<void> {
    await new Promise((resolve) => server.close(resolve))
    sockets = []
    names = []
    const SNICallback = (name: string, callback: (error: null) => void): void => {
      names.push(name)
      callback(null)
    }
    server = createTlsServer({ cert, key, SNICallback, ALPNProtocols: ['h2', 'http/1.1'] }, (socket) => {
      sockets.push(socket)
      onConnection(socket)
    }).on('tlsClientError', () => {})
    const { port } = new URL(await listen())
    transport = new Http1Transport({ origin: `https://${host}:${port}`, connectTimeoutMs: 5_000, maxConnections: 4 })
  }

  beforeEach(() => setDefaultCACertificates([...trusted, ca.cert]))
  afterEach(() => setDefaultCACertificates(trusted))

  test('a connection is kept, speaks HTTP/1.1, and spares the next one a handshake', async () => {
    await secure(ca.issue())
    for (let n = 0; n < 3; n += 1) expect(await call().over).toBe('answer')
    expect(sockets).toHaveLength(1)
    answer = (socket) => socket.write(whole('answer', 'connection: close\r\n'))
    await call().over
    expect(await call().over).toBe('answer')
    expect(sockets.map(({ alpnProtocol }) => alpnProtocol)).toEqual(['http/1.1', 'http/1.1'])
    expect(sockets[1]?.isSessionReused()).toBe(true)
    // An address is no name (RFC 6066 §3).
    expect(names).toEqual([])
  })

  test('large bodies pass both ways, and a reader makes the backend wait', async () => {
    await secure(ca.issue())
    const body = Buffer.concat([Buffer.from('body'), Buffer.alloc(3_000_000, 'y')])
    answer = () => {}
    const told = call({ body })
    await eventually(() => (seen[0]?.text.length ?? 0) > 3_000_000)
    seen[0]?.socket.write(whole('z'.repeat(3_000_000)))
    await eventually(() => told.body.length > 0)
    told.controller?.pause()
    told.controller?.resume()
    expect((await told.over).length).toBe(3_000_000)
    answer = (socket) => socket.write(whole('answer'))
    expect(await call().over).toBe('answer')
    expect(sockets).toHaveLength(1)
  })

  test('an end within the answer, and the end that is its own', async () => {
    await secure(ca.issue())
    answer = (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')
    expect(await call().over).toContain('the connection ended before')
    answer = (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nanswer')
    expect(await call().over).toBe('answer')
  })

  test('a backend that never ends its handshake costs no more than the wait for a connection', async () => {
    // It takes connections and says nothing.
    const { port } = server.address() as AddressInfo
    transport = new Http1Transport({ origin: `https://127.0.0.1:${port}`, connectTimeoutMs: 40, maxConnections: 1 })
    const words = await Promise.all([call().over, call().over])
    expect(words).toEqual(Array(2).fill('no connection: no connection within 40 ms'))
  })

  test('a backend that nobody vouches for gets no request', async () => {
    await secure(selfSigned())
    expect(await call().over).toMatch(/^no connection: self-signed certificate/)
    expect(seen.map(({ text }) => text).join('')).toBe('')
  })

  test('a backend whose certificate is for another name gets no request, and is told the name', async () => {
    await secure(ca.issue(), 'localhost')
    expect(await call().over).toMatch(/^no connection: .*does not match/)
    expect(names).toEqual(['localhost'])
    expect(seen.map(({ text }) => text).join('')).toBe('')
  })
})
