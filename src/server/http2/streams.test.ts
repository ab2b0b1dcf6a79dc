import { once } from 'node:events'
import { connect, constants, createServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import { noBytes } from '../exchange.ts'
import { until } from '../fixture.ts'
import {
  answer,
  answerOf,
  ask,
  asked,
  block,
  fieldsFor,
  frame,
  type PathServer,
  RawPeer,
  startPathServer,
} from './fixture.ts'
import { flags, frameTypes, uint31 } from './frames.ts'

/** What is asked and answered on a stream, by Node's client; where that one is too well-behaved, by frames. */

const { data, headers, rstStream, windowUpdate } = frameTypes
const { endStream, endHeaders } = flags

let paths: PathServer
beforeAll(async () => {
  paths = await startPathServer()
})
afterEach(() => paths.forget())
afterAll(() => paths.close())

test('an answer is its status, headers, date, body and trailers', async () => {
  const { headers, trailers, body } = await ask(paths.session(), '/')
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
  const ours = paths.session()
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
        expect({ ...paths.exchanges.at(-1)?.headers }).toEqual(seen)
      }),
      { numRuns: 60 },
    )
  } finally {
    theirs.destroy()
    await new Promise((resolve) => reference.close(resolve))
  }
})

test('nothing is sent before there is more than headers', async () => {
  const peer = new RawPeer(paths.port)
  peer.send(asked('/held', 1))
  await peer.settled()
  const [exchange] = paths.exchanges
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

describe('a stream that ends early', () => {
  test('tells whoever serves it, and takes nothing more', async () => {
    const stream = paths.session().request({ ':path': '/held' })
    stream.on('error', () => {})
    await until(() => paths.exchanges.length === 1)
    const [exchange] = paths.exchanges
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
    const on = paths.session()
    on.request({ ':path': '/held' }).on('error', () => {})
    await until(() => paths.exchanges.length === 1)
    let isLeft = false
    paths.exchanges[0]?.onLeft(() => {
      isLeft = true
    })
    on.destroy()
    await until(() => isLeft)
  })

  test('by this side is CANCEL to its caller', async () => {
    const stream = paths.session().request({ ':path': '/held' })
    stream.on('error', () => {})
    await until(() => paths.exchanges.length === 1)
    paths.exchanges[0]?.cut()
    await once(stream, 'close')
    expect(stream.rstCode).toBe(constants.NGHTTP2_CANCEL)
  })

  test('gives back what it did not read to its connection', async () => {
    const on = paths.session()
    for (let round = 0; round < 20; round++) {
      const stream = on.request({ ':method': 'POST', ':path': '/held' })
      stream.on('error', () => {})
      stream.write(Buffer.alloc(1_000_000))
      await until(() => paths.exchanges.length === round + 1)
      stream.close(constants.NGHTTP2_CANCEL)
      await once(stream, 'close')
    }
    // The connection's window is 8 MiB.
    expect((await ask(on, '/echo', Buffer.alloc(3_000_000))).body.length).toBe(3_000_000)
  })
})

test('an answer before the end of its request arrives whole, and the request is reset without an error', async () => {
  const peer = new RawPeer(paths.port)
  peer.send(frame(headers, endHeaders, 1, block(fieldsFor('/bytes/10'))))
  const reset = await peer.first(rstStream, 1)
  expect(reset && uint31(reset.payload, 0)).toBe(0)
  expect(peer.frames.filter(({ id }) => id === 1).map(({ type }) => type)).toEqual([headers, data, headers, rstStream])
  peer.close()
})

test.each([
  ['DATA', frame(data, endStream, 1, Buffer.from('the rest'))],
  ['trailers', frame(headers, endHeaders | endStream, 1, block([['x-checksum', '7']]))],
])('a request that ends with %s after its answer is over without a reset', async (_, rest) => {
  const peer = new RawPeer(paths.port)
  peer.send(frame(headers, endHeaders, 1, block(fieldsFor('/held'))))
  await until(() => paths.exchanges.length === 1)
  paths.exchanges[0]?.head(200, new AnswerHeaders(), true)
  paths.exchanges[0]?.end(Buffer.from('early'), { 'grpc-status': '0' })
  await peer.until(() => peer.frames.filter(({ type, id }) => type === headers && id === 1).length === 2)
  expect(paths.exchanges[0]?.isGone).toBe(false)
  peer.send(rest)
  await peer.settled()
  expect(paths.exchanges[0]?.isGone).toBe(true)
  expect(peer.resetCode(1)).toBeUndefined()
  peer.close()
})

test.each([
  ['a HEAD request', { ':method': 'HEAD' }, 200],
  ['204', { 'x-status': '204' }, 204],
  ['304', { 'x-status': '304' }, 304],
])('the answer to %s is headers only', async (_, fields, status) => {
  const on = paths.session()
  const stream = on.request({ ':path': '/held', ...fields })
  await until(() => paths.exchanges.length === 1)
  const [exchange] = paths.exchanges
  if (exchange !== undefined) answer(exchange, Buffer.from('nobody reads it'), status)
  const answered = await answerOf(stream)
  expect(answered).toMatchObject({ body: Buffer.alloc(0), headers: { ':status': status } })
})

test('who expects 100-continue is told to go on', async () => {
  const stream = paths.session().request({ ':method': 'POST', ':path': '/echo', expect: '100-continue' })
  await once(stream, 'continue')
  stream.end('body')
  expect((await answerOf(stream)).body.toString()).toBe('body')
})

test.each([
  ['any other expectation', { ':path': '/', expect: 'wonders' }, 417],
  ['a tunnel', { ':method': 'CONNECT', ':authority': 'example.com:80' }, 405],
])('%s is refused', async (_, fields, status) => {
  const stream = paths.session().request(fields)
  const [answered] = await once(stream, 'response')
  expect(answered[':status']).toBe(status)
  stream.close()
})

test('headers and trailers of many kilobytes arrive', async () => {
  const on = paths.session({ maxHeaderListPairs: 1000, settings: { maxHeaderListSize: 100_000 } })
  const stream = on.request({ ':path': '/held' })
  await until(() => paths.exchanges.length === 1)
  const long = 'x'.repeat(40_000)
  paths.exchanges[0]?.head(200, new AnswerHeaders(['x-long', long]), true)
  paths.exchanges[0]?.end(Buffer.from('ok'), { 'x-long': long })
  const answered = await answerOf(stream)
  expect(answered.headers['x-long']).toBe(long)
  expect(answered.trailers['x-long']).toBe(long)
})

test('a header that was set early gives way to one of the answer', async () => {
  const stream = paths.session().request({ ':path': '/held' })
  await until(() => paths.exchanges.length === 1)
  paths.exchanges[0]?.setHeader('vary', 'origin')
  paths.exchanges[0]?.setHeader('allow', 'GET')
  const [exchange] = paths.exchanges
  if (exchange !== undefined) answer(exchange, noBytes, 200, ['vary', 'accept'])
  expect((await answerOf(stream)).headers).toMatchObject({ vary: 'accept', allow: 'GET' })
})
