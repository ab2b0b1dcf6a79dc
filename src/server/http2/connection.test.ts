import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants, createServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import type { Exchange } from '../exchange.ts'
import { noBytes } from '../exchange.ts'
import { until } from '../fixture.ts'
import { allRoom, block, frame, goodFields, type Http2Fixture, RawPeer, serveHttp2 } from './fixture.ts'
import { flags, frameTypes, uint31 } from './frames.ts'

/** The server, called by Node's client; where that one is too well-behaved, by frames. */

const { data, headers, rstStream, settings, windowUpdate, goAway } = frameTypes
const { endStream, endHeaders } = flags

let fixture: Http2Fixture
let exchanges: Exchange[] = []
const sessions: ClientHttp2Session[] = []
beforeAll(async () => {
  fixture = await serveHttp2((exchange) => {
    exchanges.push(exchange)
    void act(exchange)
  }, 1000)
})
afterEach(() => {
  exchanges = []
  for (const session of sessions.splice(0)) session.destroy()
})
afterAll(() => fixture.close())

/** What is asked for is in the path. */
async function act(exchange: Exchange): Promise<void> {
  const [, what, size] = exchange.path.split('/')
  switch (what) {
    case 'echo': {
      const chunks: Uint8Array[] = []
      for await (const chunk of exchange.body) chunks.push(chunk)
      return answer(exchange, Buffer.concat(chunks))
    }
    case 'relay':
      exchange.head(200, new AnswerHeaders(), true)
      for await (const chunk of exchange.body) {
        exchange.write(chunk)
        await exchange.drained()
      }
      return exchange.end(noBytes, { done: 'yes' })
    case 'bytes':
      return answer(exchange, Buffer.alloc(Number(size), 7))
    case 'fill':
      return answer(exchange, Buffer.alloc(4000, Number(size)))
    case 'held':
      return undefined
    default:
      return answer(exchange, Buffer.from('ok'))
  }
}

function answer(exchange: Exchange, bytes: Uint8Array, status = 200, fields: string[] = []): void {
  exchange.head(status, new AnswerHeaders(fields), true)
  exchange.end(bytes, { 'grpc-status': '0' })
  void exchange.left()
}

function session(options: Parameters<typeof connect>[1] = {}): ClientHttp2Session {
  const opened = connect(fixture.address, options)
  opened.on('error', () => {})
  sessions.push(opened)
  return opened
}

interface Answer {
  readonly headers: Record<string, unknown>
  readonly trailers: Record<string, unknown>
  readonly body: Buffer
}

async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  let answered: Record<string, unknown> = {}
  let trailers: Record<string, unknown> = {}
  stream.on('response', (fields) => {
    answered = fields
  })
  stream.on('trailers', (fields) => {
    trailers = fields
  })
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return { headers: answered, trailers, body: Buffer.concat(chunks) }
}

function ask(on: ClientHttp2Session, path: string, body?: Buffer, fields: Record<string, string | string[]> = {}) {
  const stream = on.request({ ':method': body === undefined ? 'GET' : 'POST', ':path': path, ...fields })
  stream.end(body)
  return answerOf(stream)
}

test('an answer is its status, headers, date, body and trailers', async () => {
  const { headers, trailers, body } = await ask(session(), '/')
  expect(headers).toMatchObject({ ':status': 200, date: expect.stringMatching(/ GMT$/) })
  expect(body.toString()).toBe('ok')
  expect(trailers).toMatchObject({ 'grpc-status': '0' })
})

test("headers are handed over as Node's server does it", async () => {
  const reference = createServer()
  let seen: unknown
  reference.on('stream', (stream, fields) => {
    seen = Object.fromEntries(Object.entries(fields))
    stream.respond({}, { endStream: true })
  })
  reference.listen(0)
  await once(reference, 'listening')
  const port = (reference.address() as AddressInfo).port
  const theirs = connect(`http://127.0.0.1:${port}`)
  sessions.push(theirs)
  const ours = session()
  const name = fc.oneof(
    fc.stringMatching(/^[a-z0-9-]{1,20}$/).filter((each) => !/^(connection|upgrade|te|host|keep-alive)$/.test(each)),
    fc.constantFrom('cookie', 'accept', 'x-forwarded-for', 'user-agent', 'grpc-timeout', 'constructor'),
  )
  const text = fc.stringMatching(/^[!-~]([ -~]{0,30}[!-~])?$/)
  const value = fc.oneof(text, fc.array(text, { minLength: 1, maxLength: 3 }))
  try {
    await fc.assert(
      fc.asyncProperty(fc.dictionary(name, value, { maxKeys: 8 }), async (fields) => {
        const single = Object.fromEntries(
          Object.entries(fields).map(([each, values]) => [each, each === 'user-agent' ? String(values) : values]),
        )
        const asked = { ...single, ':path': '/', ':authority': 'test' }
        await Promise.all([answerOf(ours.request(asked).end()), answerOf(theirs.request(asked).end())])
        expect({ ...exchanges.at(-1)?.headers }).toEqual(seen)
      }),
      { numRuns: 60 },
    )
  } finally {
    theirs.destroy()
    await new Promise((resolve) => reference.close(resolve))
  }
})

test('a thousand calls at once on one connection are answered, each with its own', async () => {
  const on = session()
  await once(on, 'remoteSettings')
  const asked = Array.from({ length: 1000 }, (_, at) => Buffer.from(`call ${at} `.repeat(1 + (at % 50))))
  const answers = await Promise.all(asked.map((body) => ask(on, '/echo', body)))
  for (const [at, { body }] of answers.entries()) expect(Buffer.compare(body, asked[at] ?? noBytes)).toBe(0)
})

const large = Buffer.alloc(3_000_000, 'large bodies come and go in parts; ')

test.each([1, 1000, 65_535, 2 ** 31 - 1])('large bodies pass both ways with a window of %d bytes', async (window) => {
  const on = session({ settings: { initialWindowSize: window } })
  const body = window === 1 ? large.subarray(0, 3000) : large
  for (const path of ['/echo', '/relay']) expect(Buffer.compare((await ask(on, path, body)).body, body)).toBe(0)
})

test('a caller may take back the room that it gave while an answer is under way', async () => {
  const peer = new RawPeer(fixture.port)
  const setting = (window: number) => {
    const payload = Buffer.alloc(6)
    payload.writeUInt16BE(4)
    payload.writeUInt32BE(window, 2)
    return frame(settings, 0, 0, payload)
  }
  const more = (id: number, bytes: number) => frame(windowUpdate, 0, id, Buffer.from([0, 0, bytes >> 8, bytes]))
  const received = () => peer.frames.reduce((sum, { type, payload }) => sum + (type === data ? payload.length : 0), 0)
  peer.send(setting(100), asked('/bytes/300', 1))
  await peer.settled()
  expect(received()).toBe(100)
  // 70 bytes below zero, and back to 10 above it.
  peer.send(setting(30), more(1, 80))
  await peer.settled()
  expect(received()).toBe(110)
  peer.send(setting(230))
  await peer.first(headers, 1)
  await peer.until(() => peer.frames.filter(({ type, id }) => type === headers && id === 1).length === 2)
  expect(received()).toBe(300)
  peer.close()
})

test('nothing is sent before there is more than headers', async () => {
  const peer = new RawPeer(fixture.port)
  peer.send(asked('/held', 1))
  await peer.settled()
  const [exchange] = exchanges
  const fields = new AnswerHeaders(['x-first', '1'])
  exchange?.head(200, fields, true)
  peer.send(frame(windowUpdate, 0, 1, Buffer.from([0, 0, 1, 0])))
  await peer.settled()
  expect(peer.frames.some(({ type }) => type === headers)).toBe(false)
  fields.set('x-second', '2')
  exchange?.write(Buffer.from('x'))
  const first = await peer.first(headers, 1)
  expect(first && peer.fields(first)).toMatchObject({ 'x-first': '1', 'x-second': '2' })
  peer.close()
})

test('a slow reader holds back its own answer, and no other', async () => {
  const on = session()
  const slow = on.request({ ':path': '/held' })
  await until(() => exchanges.length === 1)
  const [exchange] = exchanges
  exchange?.head(200, new AnswerHeaders(), false)
  let written = 0
  while (exchange?.isFull === false) {
    exchange.write(Buffer.alloc(1000))
    written += 1000
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(written).toBeLessThan(200_000)
  expect((await ask(on, '/bytes/30000')).body.length).toBe(30_000)
  let isDrained = false
  const drained = exchange?.drained().then(() => {
    isDrained = true
  })
  await ask(on, '/')
  expect(isDrained).toBe(false)
  slow.resume()
  await drained
  exchange?.end(noBytes)
  await once(slow, 'close')
})

test('a small answer does not wait for a large one', async () => {
  const on = session({ settings: { initialWindowSize: 2 ** 31 - 1 } })
  on.once('connect', () => on.setLocalWindowSize(2 ** 31 - 1))
  const order: string[] = []
  const huge = ask(on, '/bytes/30000000').then(() => order.push('large'))
  const tiny = ask(on, '/bytes/20000').then(() => order.push('small'))
  await Promise.all([huge, tiny])
  expect(order).toEqual(['small', 'large'])
})

test('streams that share what room there is take turns, however often one asks', async () => {
  const peer = new RawPeer(fixture.port)
  const widen = (id: number, bytes: number) =>
    frame(windowUpdate, 0, id, Buffer.from([0, bytes >> 16, bytes >> 8, bytes]))
  peer.send(asked('/bytes/65535', 1))
  await peer.settled()
  peer.send(asked('/bytes/49152', 3), asked('/bytes/49152', 5))
  for (let at = 0; at < 100; at++) peer.send(widen(3, 1))
  await peer.settled()
  const turns = () => peer.frames.filter(({ type, id }) => type === data && id > 1).map(({ id }) => id)
  expect(turns()).toEqual([])
  peer.send(widen(0, 98_304))
  await peer.until(() => turns().length === 6)
  expect(turns()).toEqual([3, 5, 3, 5, 3, 5])
  peer.close()
})

test('who comes later does not go before those that wait', async () => {
  const peer = new RawPeer(fixture.port)
  const widen = (bytes: number) => frame(windowUpdate, 0, 0, Buffer.from([0, bytes >> 16, bytes >> 8, bytes]))
  peer.send(asked('/bytes/65535', 1))
  await peer.settled()
  peer.send(asked('/bytes/16384', 3), asked('/bytes/16384', 5))
  await peer.settled()
  peer.send(widen(49_152), asked('/bytes/16384', 7))
  const turns = () => peer.frames.filter(({ type, id }) => type === data && id > 1).map(({ id }) => id)
  await peer.until(() => turns().length === 3)
  expect(turns()).toEqual([3, 5, 7])
  peer.close()
})

test('answers of one turn leave in one write', async () => {
  const on = session()
  const answers = Array.from({ length: 20 }, () => ask(on, '/held'))
  await until(() => exchanges.length === 20)
  const socket = fixture.connections.at(-1)?.socket
  const written = vi.spyOn(socket ?? expect.fail(), 'write')
  for (const exchange of exchanges) answer(exchange, Buffer.from('ok'))
  await Promise.all(answers)
  expect(written).toHaveBeenCalledOnce()
})

describe('a stream that ends early', () => {
  test('tells whoever serves it, and takes nothing more', async () => {
    const stream = session().request({ ':path': '/held' })
    stream.on('error', () => {})
    await until(() => exchanges.length === 1)
    const [exchange] = exchanges
    let isLeft = false
    exchange?.onLeft(() => {
      isLeft = true
    })
    stream.close(constants.NGHTTP2_CANCEL)
    await until(() => isLeft)
    expect(exchange?.isGone).toBe(true)
    expect(exchange?.isBodyOver).toBe(true)
    expect(exchange?.left()).toBeUndefined()
    if (exchange !== undefined) answer(exchange, Buffer.from('late'))
    exchange?.cut()
  })

  test('is told when its connection is cut', async () => {
    const on = session()
    on.request({ ':path': '/held' }).on('error', () => {})
    await until(() => exchanges.length === 1)
    let isLeft = false
    exchanges[0]?.onLeft(() => {
      isLeft = true
    })
    on.destroy()
    await until(() => isLeft)
  })

  test('by this side is CANCEL to its caller', async () => {
    const stream = session().request({ ':path': '/held' })
    stream.on('error', () => {})
    await until(() => exchanges.length === 1)
    exchanges[0]?.cut()
    await once(stream, 'close')
    expect(stream.rstCode).toBe(constants.NGHTTP2_CANCEL)
  })

  test('gives back what it did not read to its connection', async () => {
    const on = session()
    for (let round = 0; round < 20; round++) {
      const stream = on.request({ ':method': 'POST', ':path': '/held' })
      stream.on('error', () => {})
      stream.write(Buffer.alloc(1_000_000))
      await until(() => exchanges.length === round + 1)
      stream.close(constants.NGHTTP2_CANCEL)
      await once(stream, 'close')
    }
    // The connection's window is 8 MiB.
    expect((await ask(on, '/echo', large)).body.length).toBe(large.length)
  })
})

test('an answer before the end of its request arrives whole, and the request is reset without an error', async () => {
  const peer = new RawPeer(fixture.port)
  peer.send(frame(headers, endHeaders, 1, block(path('/bytes/10'))))
  const reset = await peer.first(rstStream, 1)
  expect(reset && uint31(reset.payload, 0)).toBe(0)
  expect(peer.frames.filter(({ id }) => id === 1).map(({ type }) => type)).toEqual([headers, data, headers, rstStream])
  peer.close()
})

test.each([
  ['DATA', frame(data, endStream, 1, Buffer.from('the rest'))],
  ['trailers', frame(headers, endHeaders | endStream, 1, block([['x-checksum', '7']]))],
])('a request that ends with %s after its answer is over without a reset', async (_, rest) => {
  const peer = new RawPeer(fixture.port)
  peer.send(frame(headers, endHeaders, 1, block(path('/held'))))
  await until(() => exchanges.length === 1)
  exchanges[0]?.head(200, new AnswerHeaders(), true)
  exchanges[0]?.end(Buffer.from('early'), { 'grpc-status': '0' })
  await peer.until(() => peer.frames.filter(({ type, id }) => type === headers && id === 1).length === 2)
  expect(exchanges[0]?.isGone).toBe(false)
  peer.send(rest)
  await peer.settled()
  expect(exchanges[0]?.isGone).toBe(true)
  expect(peer.resetCode(1)).toBeUndefined()
  peer.close()
})

test.each([
  ['a HEAD request', { ':method': 'HEAD' }, 200],
  ['204', { 'x-status': '204' }, 204],
  ['304', { 'x-status': '304' }, 304],
])('the answer to %s is headers only', async (_, fields, status) => {
  const on = session()
  const stream = on.request({ ':path': '/held', ...fields })
  await until(() => exchanges.length === 1)
  const [exchange] = exchanges
  if (exchange !== undefined) answer(exchange, Buffer.from('nobody reads it'), status)
  const answered = await answerOf(stream)
  expect(answered).toMatchObject({ body: Buffer.alloc(0), headers: { ':status': status } })
})

test('who expects 100-continue is told to go on', async () => {
  const stream = session().request({ ':method': 'POST', ':path': '/echo', expect: '100-continue' })
  await once(stream, 'continue')
  stream.end('body')
  expect((await answerOf(stream)).body.toString()).toBe('body')
})

test.each([
  ['any other expectation', { ':path': '/', expect: 'wonders' }, 417],
  ['a tunnel', { ':method': 'CONNECT', ':authority': 'example.com:80' }, 405],
])('%s is refused', async (_, fields, status) => {
  const stream = session().request(fields)
  const [answered] = await once(stream, 'response')
  expect(answered[':status']).toBe(status)
  stream.close()
})

test('headers and trailers of many kilobytes arrive', async () => {
  const on = session({ maxHeaderListPairs: 1000, settings: { maxHeaderListSize: 100_000 } })
  const stream = on.request({ ':path': '/held' })
  await until(() => exchanges.length === 1)
  const long = 'x'.repeat(40_000)
  exchanges[0]?.head(200, new AnswerHeaders(['x-long', long]), true)
  exchanges[0]?.end(Buffer.from('ok'), { 'x-long': long })
  const answered = await answerOf(stream)
  expect(answered.headers['x-long']).toBe(long)
  expect(answered.trailers['x-long']).toBe(long)
})

test('a caller without a dynamic table is served', async () => {
  const on = session({ settings: { headerTableSize: 0 } })
  await once(on, 'localSettings')
  for (let round = 0; round < 3; round++) expect((await ask(on, '/')).body.toString()).toBe('ok')
  on.settings({ headerTableSize: 100 })
  await once(on, 'localSettings')
  expect((await ask(on, '/')).body.toString()).toBe('ok')
})

test('a header that was set early gives way to one of the answer', async () => {
  const stream = session().request({ ':path': '/held' })
  await until(() => exchanges.length === 1)
  exchanges[0]?.setHeader('vary', 'origin')
  exchanges[0]?.setHeader('allow', 'GET')
  const [exchange] = exchanges
  if (exchange !== undefined) answer(exchange, noBytes, 200, ['vary', 'accept'])
  expect((await answerOf(stream)).headers).toMatchObject({ vary: 'accept', allow: 'GET' })
})

describe('a connection that is drained', () => {
  test('takes what is on its way, finishes its calls, and closes', async () => {
    const peer = new RawPeer(fixture.port)
    peer.send(asked('/held', 1))
    await until(() => exchanges.length === 1)
    fixture.connections.at(-1)?.drain()
    const first = await peer.first(goAway)
    expect(first && uint31(first.payload, 0)).toBe(2 ** 31 - 1)
    peer.send(asked('/', 3))
    expect((await peer.first(data, 3))?.payload.toString()).toBe('ok')
    const ping = await peer.first(frameTypes.ping)
    if (ping !== undefined) peer.send(frame(frameTypes.ping, flags.ack, 0, ping.payload), asked('/', 5))
    await peer.first(rstStream, 5)
    expect(peer.resetCode(5)).toBe(constants.NGHTTP2_REFUSED_STREAM)
    const last = peer.frames.filter(({ type }) => type === goAway).at(-1)
    expect(last && uint31(last.payload, 0)).toBe(3)
    const [exchange] = exchanges
    if (exchange !== undefined) answer(exchange, Buffer.from('ok'))
    expect((await peer.first(data, 1))?.payload.toString()).toBe('ok')
    await peer.until(() => false)
  })

  test('closes when its last answer was taken, however long that takes', async () => {
    const bytes = Buffer.alloc(16_000_000, 'x')
    const held: Exchange[] = []
    // The socket takes all of an answer, whatever the system takes of it.
    const own = await serveHttp2((exchange) => held.push(exchange), 1, 2 * bytes.length)
    onTestFinished(() => own.close())
    const peer = new RawPeer(own.port)
    peer.send(allRoom(), asked('/', 1), frame(goAway, 0, 0, Buffer.alloc(8)))
    await peer.settled()
    peer.pause()
    vi.useFakeTimers({ toFake: ['setTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const [exchange] = held
    if (exchange !== undefined) answer(exchange, bytes)
    const socket = own.connections[0]?.socket
    while (socket?.writableEnded !== true) await new Promise((resolve) => setImmediate(resolve))
    expect(socket.writableFinished).toBe(false)
    vi.advanceTimersByTime(60_000)
    peer.resume()
    await peer.until(() => false)
    expect(peer.frames.reduce((sum, { type, payload }) => sum + (type === data ? payload.length : 0), 0)).toBe(
      bytes.length,
    )
  })

  test("is closed by Node's client, too, once its calls are over", async () => {
    const on = session()
    const answering = ask(on, '/held')
    await until(() => exchanges.length === 1)
    const connection = fixture.connections.at(-1)
    connection?.drain()
    await once(on, 'goaway')
    const [exchange] = exchanges
    if (exchange !== undefined) answer(exchange, Buffer.from('ok'))
    expect((await answering).body.toString()).toBe('ok')
    await until(() => connection?.socket.destroyed === true)
  })
})

test('a ping that is not answered until the next one says so', async () => {
  const peer = new RawPeer(fixture.port)
  await peer.settled()
  const connection = fixture.connections.at(-1)
  expect(connection?.ping()).toBe(true)
  const asking = () => peer.frames.find((each) => each.type === frameTypes.ping && each.flags === 0)
  await peer.until(() => asking() !== undefined)
  expect(connection?.ping()).toBe(false)
  peer.send(frame(frameTypes.ping, flags.ack, 0, asking()?.payload))
  await peer.settled()
  expect(connection?.ping()).toBe(true)
  // So does any other frame: who reads slowly comes late to the ping.
  peer.send(frame(frameTypes.windowUpdate, 0, 0, Buffer.from([0, 0, 0, 1])))
  await peer.settled()
  expect(connection?.ping()).toBe(true)
  peer.close()
})

test('a caller may send a ping for each part of its answers, however many they are', async () => {
  const peer = new RawPeer(fixture.port)
  peer.send(allRoom())
  for (let round = 0; round < 120; round++) {
    const calls = Array.from({ length: 100 }, (_, at) => [
      asked('/', 2 * (100 * round + at) + 1),
      frame(frameTypes.ping, 0, 0, Buffer.alloc(8)),
    ])
    peer.send(...calls.flat())
    await peer.settled()
    peer.frames.length = 0
  }
  await peer.settled()
  expect(peer.isClosed).toBe(false)
  peer.close()
})

test('a caller may reset every stream that was answered', async () => {
  const peer = new RawPeer(fixture.port)
  peer.send(allRoom())
  for (let round = 0; round < 15; round++) {
    const ids = Array.from({ length: 100 }, (_, at) => 2 * (100 * round + at) + 1)
    peer.send(...ids.map((id) => frame(headers, endHeaders, id, block(path('/')))))
    await peer.until(() => peer.frames.filter(({ type }) => type === headers).length === 200)
    peer.send(...ids.map((id) => frame(rstStream, 0, id, Buffer.from([0, 0, 0, 8]))))
    peer.frames.length = 0
  }
  await peer.settled()
  expect(peer.isClosed).toBe(false)
  peer.close()
})

test('while one caller begins and resets streams without end, the others are served', async () => {
  const on = session()
  const cut: number[] = []
  for (let round = 0; round < 5; round++) {
    const attacker = new RawPeer(fixture.port)
    for (let at = 0; at < 2000; at++) {
      attacker.send(asked('/held', 2 * at + 1), frame(rstStream, 0, 2 * at + 1, Buffer.from([0, 0, 0, 8])))
    }
    expect((await ask(on, '/echo', Buffer.from('healthy'))).body.toString()).toBe('healthy')
    await attacker.until(() => false)
    cut.push(attacker.goneWith ?? -1)
    attacker.close()
  }
  expect(cut).toEqual(Array.from({ length: 5 }, () => constants.NGHTTP2_ENHANCE_YOUR_CALM))
})

test('with 128 MiB of its answers unread, a connection gets no new streams', async () => {
  const peer = new RawPeer(fixture.port)
  peer.send(...[1, 3, 5].map((id) => asked('/held', id)))
  await until(() => exchanges.length === 3)
  const part = Buffer.alloc(45 * 1024 * 1024)
  for (const exchange of exchanges) answer(exchange, part)
  peer.send(asked('/', 7))
  await peer.first(rstStream, 7)
  expect(peer.resetCode(7)).toBe(constants.NGHTTP2_REFUSED_STREAM)
  exchanges[0]?.cut()
  peer.send(asked('/held', 9))
  await until(() => exchanges.length === 4)
  peer.close()
})

test('what a caller did not read yet is not overwritten by what others get', async () => {
  const peer = new RawPeer(fixture.port)
  peer.send(allRoom())
  await peer.settled()
  peer.pause()
  const connection = fixture.connections.at(-1)
  let calls = 0
  while ((connection?.socket.writableLength ?? 1) === 0) {
    peer.send(...Array.from({ length: 100 }, () => asked(`/fill/${calls % 200}`, 2 * calls++ + 1)))
    await until(() => exchanges.length === calls)
  }
  const others = session()
  for (let round = 0; round < 20; round++) {
    await Promise.all(Array.from({ length: 20 }, () => ask(others, '/fill/255')))
  }
  peer.resume()
  const bodies = () => peer.frames.filter(({ type }) => type === data)
  await peer.until(() => bodies().length === calls)
  for (const { id, payload } of bodies()) expect(payload.equals(Buffer.alloc(4000, ((id - 1) / 2) % 200))).toBe(true)
  peer.close()
})

test('an answer goes on, however much the socket takes at once', async () => {
  const roomy = await serveHttp2((exchange) => answer(exchange, large), 1000, 1024 * 1024)
  const peer = new RawPeer(roomy.port)
  peer.send(allRoom(), asked('/', 1))
  const received = () => peer.frames.reduce((sum, { type, payload }) => sum + (type === data ? payload.length : 0), 0)
  await peer.until(() => received() === large.length)
  peer.close()
  await roomy.close()
})

test('a caller that asks and never reads makes its connection hold little', async () => {
  const peer = new RawPeer(fixture.port)
  await peer.settled()
  peer.pause()
  peer.send(allRoom(), ...Array.from({ length: 500 }, (_, at) => asked('/bytes/60000', 2 * at + 1)))
  await until(() => exchanges.length === 500)
  expect(fixture.connections.at(-1)?.sender.outbox.length).toBeLessThan(300_000)
  peer.close()
})

test('a caller that asks for answers to frames and does not read them is cut off', async () => {
  const peer = new RawPeer(fixture.port)
  await peer.settled()
  peer.pause()
  const connection = fixture.connections.at(-1)
  // What the system takes is beyond counting: the connection is told that it takes nothing.
  vi.spyOn(connection?.socket ?? expect.fail(), 'writableLength', 'get').mockReturnValue(2 ** 30)
  for (let at = 0; at < 70_000; at++) connection?.sender.ping(Buffer.alloc(8), 0, true)
  expect(connection?.socket.writableEnded).toBe(true)
  peer.close()
})

function path(of: string): [string, string][] {
  return goodFields.map(([name, value]) => [name, name === ':path' ? of : value])
}

function asked(of: string, id: number): Buffer {
  return frame(headers, endHeaders | endStream, id, block(path(of)))
}
