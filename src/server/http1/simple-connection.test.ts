import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import type { Exchange } from '../exchange.ts'
import { until } from '../fixture.ts'
import { CommonLines } from './answer-text.ts'
import { type ConnectionOwner, restMs, SimpleConnection } from './simple-connection.ts'
import { request, unusualRequests } from './unusual-requests.ts'

/** Connections of the gate on real sockets, with what they tell written down. */
let server: Server
let caller: Socket
let connection: SimpleConnection
let handled: Exchange[]
/** What was still to be read of connections that were handed over. */
let handedOver: string[]
let broken: number
let closed: number
let isLeaving: boolean

const owner: ConnectionOwner = {
  lines: new CommonLines(30_000),
  isLeaving: () => isLeaving,
  handle: (exchange) => void handled.push(exchange),
  handOver({ socket }) {
    const at = handedOver.push('') - 1
    socket.on('data', (chunk: Buffer) => {
      handedOver[at] += chunk.toString('latin1')
    })
  },
  broken(socket) {
    broken += 1
    socket.destroy()
  },
  closed(which) {
    if (which === connection) closed += 1
  },
}

beforeEach(async () => {
  handled = []
  handedOver = []
  broken = 0
  isLeaving = false
  server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  caller = connect(port, '127.0.0.1').setNoDelay()
  caller.on('error', () => {})
  const [socket] = await once(server, 'connection')
  if (!(socket instanceof Socket)) throw new Error('no socket')
  socket.on('error', () => {})
  connection = new SimpleConnection(socket, owner)
  closed = 0
})
afterEach(async () => {
  caller.destroy()
  connection.socket.destroy()
  server.close()
  await once(server, 'close')
})

/** A request with an echo of its body in mind. */
function post(body: string, more: readonly string[] = []): Buffer {
  return request(['POST /echo HTTP/1.1', 'host: x', ...more, `content-length: ${body.length}`], body)
}

async function send(bytes: Uint8Array): Promise<void> {
  const before = connection.socket.bytesRead
  caller.write(bytes)
  await until(() => connection.socket.bytesRead === before + bytes.length)
}

/** The exchange that was begun last. */
function last(): Exchange {
  const exchange = handled.at(-1)
  if (exchange === undefined) throw new Error('nothing was handled')
  return exchange
}

/** Answers what was begun last. */
function answer(body: Uint8Array | string, headers: string[] = []): void {
  const bytes = Buffer.from(body)
  last().head(200, new AnswerHeaders([...headers, 'content-length', String(bytes.length)]), false)
  last().end(bytes)
}

/** Collects what comes back, chunk by chunk. */
function received(): string[] {
  const chunks: string[] = []
  caller.setEncoding('latin1').on('data', (chunk: string) => chunks.push(chunk))
  return chunks
}

const kept = 'Date: *\r\nConnection: keep-alive\r\nKeep-Alive: timeout=30\r\n'

/** Without the moment. */
function told(chunk: string | undefined): string | undefined {
  return chunk?.replace(/(?<=\r\nDate: ).*(?= GMT\r\n)/, '*').replace('* GMT', '*')
}

/** Another piece of an answer. */
async function next(chunks: string[]): Promise<string | undefined> {
  await until(() => chunks.length > 0)
  return told(chunks.shift())
}

describe('a simple request', () => {
  test('is handled when all of it is there, wherever it is cut', async () => {
    const bytes = post('{"é":1}')
    for (let at = 1; at < bytes.length; at += 1) {
      await send(bytes.subarray(0, at))
      expect(handled.length).toBe(at - 1)
      await send(bytes.subarray(at))
      expect(handled.length).toBe(at)
      expect(Buffer.from(last().takeBody() ?? []).toString('latin1')).toBe('{"é":1}')
      answer('')
    }
    expect(handedOver).toEqual([])
  })

  test('says what it is', async () => {
    await send(post('abc', ['X-Key: a']))
    const { method, url, path, headers, httpVersion, isHttp2, isBodyOver, body } = last()
    expect({ method, url, path, headers: { ...headers }, httpVersion, isHttp2, isBodyOver }).toEqual({
      method: 'POST',
      url: '/echo',
      path: '/echo',
      headers: { host: 'x', 'x-key': 'a', 'content-length': '3' },
      httpVersion: '1.1',
      isHttp2: false,
      isBodyOver: true,
    })
    expect(Buffer.concat(await body.toArray()).toString()).toBe('abc')
    expect(last().socket.remoteAddress).toBe('127.0.0.1')
    expect(last().connection).toBe(connection.socket)
  })

  test('behind another one waits until the answer to that is out', async () => {
    const chunks = received()
    await send(post('1'))
    await send(post('2'))
    await send(post('3'))
    expect(handled.length).toBe(1)
    expect(connection.isIdle).toBe(false)
    answer('one')
    await until(() => chunks.join('').endsWith('one'))
    // More than one at once is not simple.
    expect(handled.length).toBe(1)
    await until(() => handedOver[0] === `${post('2')}${post('3')}`)
  })

  test('that is alone behind another one is handled after it', async () => {
    await send(post('1'))
    await send(post('2').subarray(0, 10))
    await send(post('2').subarray(10))
    answer('one')
    expect(handled.length).toBe(2)
    expect(last().takeBody()).toEqual(Buffer.from('2'))
    answer('two')
    expect(connection.isIdle).toBe(true)
    expect(handedOver).toEqual([])
  })
})

describe('a connection is handed over with all bytes that were not handled', () => {
  test.each(unusualRequests)('for %s', async (_, bytes) => {
    await send(post('1'))
    answer('one')
    await send(bytes)
    await until(() => handedOver[0]?.length === bytes.length)
    expect(handedOver).toEqual([bytes.toString('latin1')])
    await send(Buffer.from('and on'))
    await until(() => handedOver[0] === `${bytes.toString('latin1')}and on`)
    expect(handled.length).toBe(1)
    connection.socket.destroy()
    await once(connection.socket, 'close')
    expect(closed).toBe(0)
  })

  test('for a request that is longer than one read', async () => {
    const head = request(['POST /echo HTTP/1.1', 'host: x', 'content-length: 65536'])
    await send(head)
    await until(() => handedOver[0] === head.toString('latin1'))
  })

  test.each([
    ['within its head', 20],
    ['within its body', -1],
  ])('for a request that stops %s, after a while', async (_, at) => {
    const part = post('12345').subarray(0, at)
    await send(part)
    connection.look(performance.now() + restMs / 2, 100_000)
    expect(handedOver).toEqual([])
    connection.look(performance.now() + restMs, 100_000)
    await until(() => handedOver[0] === part.toString('latin1'))
  })

  test('for a request that comes in very many pieces', async () => {
    const bytes = post('x'.repeat(200))
    for (const byte of bytes.subarray(0, 100)) await send(Buffer.from([byte]))
    await until(() => handedOver[0]?.length === 100)
  })
})

describe('a connection', () => {
  test('that is idle for its time is closed, and no other', async () => {
    connection.look(performance.now() + 900, 1_000)
    await send(post('1'))
    connection.look(performance.now() + 100_000, 1_000)
    expect(connection.socket.destroyed).toBe(false)
    answer('one')
    connection.look(performance.now() + 900, 1_000)
    expect(connection.socket.destroyed).toBe(false)
    connection.look(performance.now() + 1_000, 1_000)
    expect(connection.socket.destroyed).toBe(true)
    await until(() => closed === 1)
  })

  test('takes in no more than a bound while an answer is on its way', async () => {
    await send(post('1'))
    const flood = Buffer.concat(Array.from({ length: 40_000 }, () => post('x'.repeat(200))))
    caller.write(flood)
    await until(() => connection.socket.isPaused())
    for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    expect(connection.socket.bytesRead).toBeLessThan(300_000)
    answer('one')
    await until(() => handedOver[0]?.length === flood.length)
    expect(handedOver[0] === flood.toString('latin1')).toBe(true)
  })

  test('that was full is read on when the answer is out', async () => {
    await send(post('1'))
    const bytes = post('2'.repeat(64))
    await send(bytes.subarray(0, -64))
    for (const byte of bytes.subarray(-64)) await send(Buffer.from([byte]))
    expect(connection.socket.isPaused()).toBe(true)
    answer('one')
    expect(last().takeBody()).toEqual(Buffer.from('2'.repeat(64)))
    answer('two')
    await send(post('3'))
    expect(handled.length).toBe(3)
  })

  test('whose caller leaves during a call tells so, once, and not after the answer', async () => {
    const left: number[] = []
    await send(post('1'))
    last().onLeft(() => left.push(1))
    answer('one')
    await send(post('2'))
    last().onLeft(() => left.push(2))
    expect(last().isGone).toBe(false)
    caller.destroy()
    await until(() => closed === 1)
    expect(left).toEqual([2])
    expect(last().isGone).toBe(true)
    expect(last().left()).toBeUndefined()
    // All of it goes nowhere.
    last().head(200, new AnswerHeaders(), false)
    last().write(Buffer.from('x'))
    last().end(Buffer.from('x'))
  })

  test('whose caller says nothing more during a call is gone, as with Node', async () => {
    let hasLeft = false
    await send(post('1'))
    last().onLeft(() => {
      hasLeft = true
    })
    caller.end()
    await until(() => hasLeft)
    expect(broken).toBe(0)
  })

  test.each([
    ['a request', 1, post('12345').subarray(0, -1)],
    ['nothing', 0, Buffer.alloc(0)],
  ])('that ends within %s is broken %d times', async (_, times, bytes) => {
    await send(bytes)
    connection.socket.on('end', () => connection.look(performance.now() + 100_000, 1_000_000))
    caller.end()
    await until(() => closed === 1)
    expect(handedOver).toEqual([])
    expect(broken).toBe(times)
  })
})

describe('an answer', () => {
  test('leaves as one piece, head and body', async () => {
    const chunks = received()
    for (const length of [0, 3, 4_000]) {
      await send(post('1'))
      last().setHeader('vary', 'origin')
      answer('x'.repeat(length), ['content-type', 'text/plain'])
      expect(last().left()).toBeUndefined()
      const head = `HTTP/1.1 200 OK\r\nvary: origin\r\ncontent-type: text/plain\r\ncontent-length: ${length}\r\n${kept}\r\n`
      expect(await next(chunks)).toBe(head + 'x'.repeat(length))
    }
  })

  test('of parts leaves in chunks, the first one with its head, the end with the last one', async () => {
    const chunks = received()
    await send(post('1'))
    last().head(200, new AnswerHeaders(['a', 'b']), false)
    last().write(Buffer.from('x'.repeat(26)))
    expect(await next(chunks)).toBe(
      `HTTP/1.1 200 OK\r\na: b\r\n${kept}Transfer-Encoding: chunked\r\n\r\n1a\r\n${'x'.repeat(26)}\r\n`,
    )
    last().write(new Uint8Array(0))
    last().write(Buffer.from('two'))
    expect(await next(chunks)).toBe('3\r\ntwo\r\n')
    last().end(Buffer.from('three'))
    expect(await next(chunks)).toBe('5\r\nthree\r\n0\r\n\r\n')
    await send(post('2'))
    expect(handled.length).toBe(2)
  })

  test.each<[what: string, method: string, status: number, bytes: string, trailers: boolean, expected: string]>([
    ['nothing', 'POST', 200, '', false, `${kept}Content-Length: 0\r\n\r\n`],
    ['one part', 'POST', 200, 'ab', false, `${kept}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n`],
    ['trailers', 'POST', 200, '', true, `${kept}Transfer-Encoding: chunked\r\n\r\n0\r\nc: d\r\n\r\n`],
    [
      'a part and trailers',
      'POST',
      200,
      'ab',
      true,
      `${kept}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nc: d\r\n\r\n`,
    ],
    ['no content', 'POST', 204, '', false, `${kept}\r\n`],
    ['a body where none can be', 'POST', 304, 'ab', false, `${kept}\r\n`],
    ['a head only', 'HEAD', 200, 'ab', true, `${kept}\r\n`],
  ])('of %s ends where it says', async (_, method, status, bytes, hasTrailers, expected) => {
    const chunks = received()
    await send(request([`${method} / HTTP/1.1`, 'host: x']))
    last().head(status, new AnswerHeaders(), hasTrailers)
    last().end(Buffer.from(bytes), hasTrailers ? { c: 'd' } : undefined)
    expect((await next(chunks))?.replace(/^HTTP\/1.1 .*\r\n/, '')).toBe(expected)
    await send(post('2'))
    expect(handled.length).toBe(2)
  })

  test.each([
    ['the caller asked for it', 'Date: *\r\nConnection: close\r\n', ['connection: close']],
    ['the server is leaving', 'connection: close\r\nDate: *\r\n', []],
  ])('is the last one when %s', async (_, lines, more) => {
    const chunks = received()
    await send(post('1', more))
    isLeaving = more.length === 0
    last().head(204, new AnswerHeaders(), false)
    last().end(new Uint8Array(0))
    expect(await next(chunks)).toBe(`HTTP/1.1 204 No Content\r\n${lines}\r\n`)
    caller.write(post('2'))
    await until(() => closed === 1)
    expect(handled.length).toBe(1)
  })

  test('that its caller does not read is not out, and nothing is handled before it is', async () => {
    const bytes = Buffer.alloc(20_000_000, 'x')
    caller.pause()
    await send(post('1'))
    await send(post('2'))
    answer(bytes)
    let isOut = false
    const left = last()
      .left()
      ?.then(() => {
        isOut = true
      })
    await new Promise((resolve) => setImmediate(resolve))
    expect([isOut, handled.length]).toEqual([false, 1])
    let length = 0
    caller.on('data', (chunk: Buffer) => {
      length += chunk.length
    })
    caller.resume()
    await left
    expect(handled.length).toBe(2)
    await until(() => length > bytes.length)
  })

  test('whose caller leaves before it is out is over, and nothing follows', async () => {
    let hasLeft = false
    caller.pause()
    await send(post('1'))
    await send(post('2'))
    last().onLeft(() => {
      hasLeft = true
    })
    answer(Buffer.alloc(20_000_000))
    const left = last().left()
    caller.destroy()
    await left
    await until(() => closed === 1)
    for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    expect([hasLeft, handled.length, handedOver.length]).toEqual([false, 1, 0])
  })

  test('of parts is full while its caller does not read', async () => {
    caller.pause()
    await send(post('1'))
    last().head(200, new AnswerHeaders(), false)
    while (!last().isFull) last().write(Buffer.alloc(100_000))
    const draining = last().drained()
    caller.resume()
    await draining
    expect(last().isFull).toBe(false)
    caller.pause()
    while (!last().isFull) last().write(Buffer.alloc(100_000))
    const leaving = last().drained()
    caller.destroy()
    await leaving
    await until(() => last().isGone)
    expect(last().isFull).toBe(false)
  })

  test('of parts is as it was handed over, however late its caller reads it', async () => {
    caller.pause()
    await send(post('1'))
    last().head(200, new AnswerHeaders(['content-length', '100000000']), false)
    const parts: string[] = []
    for (let part = 0; !last().isFull || part % 50 > 0; part += 1) {
      parts.push(String(part % 10).repeat(20_000))
      last().write(Buffer.from(parts[part] ?? ''))
    }
    const chunks = received()
    caller.resume()
    await until(() => chunks.join('').length > parts.join('').length)
    expect(chunks.join('').endsWith(`\r\n\r\n${parts.join('')}`)).toBe(true)
  })

  test('can be cut until it is out', async () => {
    await send(post('1'))
    const [first] = handled
    answer('one')
    first?.cut()
    expect(connection.socket.destroyed).toBe(false)
    await send(post('2'))
    last().cut()
    await until(() => closed === 1)
    expect(connection.socket.destroyed).toBe(true)
  })

  test.each(['a\r\nb: c', 'a\nb', 'a\rb', 'a\0', 'a\x7f', '…'])('does not leave with the value %j', async (hostile) => {
    const chunks = received()
    await send(post('1'))
    expect(() => answer('one', ['a', hostile])).toThrow('the answer cannot have this value in its header a')
    last().head(200, new AnswerHeaders(), true)
    expect(() => last().end(new Uint8Array(0), { a: hostile })).toThrow('the answer cannot have this value')
    expect(chunks).toEqual([])
  })

  test.each(['', 'a b', 'a:', 'a\r\nb', 'é'])('does not leave with the name %j', async (hostile) => {
    await send(post('1'))
    expect(() => answer('one', [hostile, 'a'])).toThrow('the answer cannot have')
    expect(() => answer('one', [hostile, 'a'])).toThrow('the answer cannot have')
  })
})
