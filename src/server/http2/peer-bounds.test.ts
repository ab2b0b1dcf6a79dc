import { constants } from 'node:http2'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { until } from '../fixture.ts'
import { errorCodes } from './error-codes.ts'
import {
  allRoom,
  answer,
  ask,
  asked,
  block,
  fieldsFor,
  frame,
  goodFields,
  type Http2Fixture,
  number,
  open,
  type PathServer,
  RawPeer,
  serveHttp2,
  setting,
  startPathServer,
} from './fixture.ts'
import { flags, frameTypes } from './frames.ts'

/** What a peer can make this side do or keep is bounded: docs/wire.md has the table. */

const { data, headers, priority, rstStream, settings, ping, windowUpdate, continuation } = frameTypes
const { endHeaders } = flags

let still: Http2Fixture
beforeAll(async () => {
  // It answers nothing, so that streams stay open.
  still = await serveHttp2(() => {}, 10)
})
afterAll(() => still.close())

let paths: PathServer
beforeAll(async () => {
  paths = await startPathServer()
})
afterEach(() => paths.forget())
afterAll(() => paths.close())

const tooMuch: [string, Buffer][] = [
  ['a frame of 33 SETTINGS', frame(settings, 0, 0, Buffer.concat(Array.from({ length: 33 }, () => setting(3, 1))))],
  [
    'a window that changes again and again while streams are open',
    Buffer.concat([open(1), ...Array.from({ length: 7_000 }, (_, at) => frame(settings, 0, 0, setting(4, at)))]),
  ],
  [
    'CONTINUATIONs without an end',
    Buffer.concat([
      frame(headers, 0, 1, block(goodFields)),
      ...Array.from({ length: 40 }, () => frame(continuation, 0, 1)),
    ]),
  ],
  [
    'a header block of more than 64 KiB',
    Buffer.concat([
      frame(headers, 0, 1, block(goodFields)),
      ...Array.from({ length: 5 }, () => frame(continuation, 0, 1, Buffer.alloc(16_384))),
    ]),
  ],
  ['10,001 PINGs at once', Buffer.concat(Array.from({ length: 12_000 }, () => frame(ping, 0, 0, Buffer.alloc(8))))],
  ['10,001 SETTINGS at once', Buffer.concat(Array.from({ length: 12_000 }, () => frame(settings, 0, 0)))],
  ['10,001 empty DATA at once', Buffer.concat([open(1), ...Array.from({ length: 12_000 }, () => frame(data, 0, 1))])],
  ['10,001 unknown frames at once', Buffer.concat(Array.from({ length: 12_000 }, () => frame(0xfa, 0, 0)))],
  [
    '10,001 PRIORITYs at once',
    Buffer.concat(Array.from({ length: 12_000 }, () => frame(priority, 0, 3, Buffer.alloc(5)))),
  ],
  [
    '1,001 streams that are begun and reset',
    Buffer.concat(
      Array.from({ length: 1_200 }, (_, at) =>
        Buffer.concat([open(2 * at + 1), frame(rstStream, 0, 2 * at + 1, number(8))]),
      ),
    ),
  ],
  [
    '1,001 streams that are begun and made to fail',
    Buffer.concat(
      Array.from({ length: 1_200 }, (_, at) =>
        Buffer.concat([open(2 * at + 1), frame(windowUpdate, 0, 2 * at + 1, number(0))]),
      ),
    ),
  ],
]

test.each(tooMuch)('%s ends the connection with ENHANCE_YOUR_CALM', async (_, sent) => {
  const peer = new RawPeer(still.port)
  peer.send(sent)
  await peer.until(() => false)
  expect(peer.goneWith).toBe(errorCodes.enhanceYourCalm)
})

test('streams beyond the allowed number are refused, and those below it go on', async () => {
  const peer = new RawPeer(still.port)
  peer.send(...Array.from({ length: 11 }, (_, at) => open(2 * at + 1)))
  await peer.first(rstStream)
  expect(peer.frames.filter(({ type }) => type === rstStream).map(({ id }) => id)).toEqual([21])
  expect(peer.resetCode(21)).toBe(errorCodes.refusedStream)
  peer.close()
})

test('a caller may send a ping for each part of its answers, however many they are', async () => {
  const peer = new RawPeer(paths.port)
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
  const peer = new RawPeer(paths.port)
  peer.send(allRoom())
  for (let round = 0; round < 15; round++) {
    const ids = Array.from({ length: 100 }, (_, at) => 2 * (100 * round + at) + 1)
    peer.send(...ids.map((id) => frame(headers, endHeaders, id, block(fieldsFor('/')))))
    await peer.until(() => peer.frames.filter(({ type }) => type === headers).length === 200)
    peer.send(...ids.map((id) => frame(rstStream, 0, id, Buffer.from([0, 0, 0, 8]))))
    peer.frames.length = 0
  }
  await peer.settled()
  expect(peer.isClosed).toBe(false)
  peer.close()
})

test('while one caller begins and resets streams without end, the others are served', async () => {
  const on = paths.session()
  const cut: number[] = []
  for (let round = 0; round < 5; round++) {
    const attacker = new RawPeer(paths.port)
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
  const peer = new RawPeer(paths.port)
  peer.send(...[1, 3, 5].map((id) => asked('/held', id)))
  await until(() => paths.exchanges.length === 3)
  const part = Buffer.alloc(45 * 1024 * 1024)
  for (const exchange of paths.exchanges) answer(exchange, part)
  peer.send(asked('/', 7))
  await peer.first(rstStream, 7)
  expect(peer.resetCode(7)).toBe(constants.NGHTTP2_REFUSED_STREAM)
  paths.exchanges[0]?.cut()
  peer.send(asked('/held', 9))
  await until(() => paths.exchanges.length === 4)
  peer.close()
})

test('a caller that asks and never reads makes its connection hold little', async () => {
  const peer = new RawPeer(paths.port)
  await peer.settled()
  peer.pause()
  peer.send(allRoom(), ...Array.from({ length: 500 }, (_, at) => asked('/bytes/60000', 2 * at + 1)))
  await until(() => paths.exchanges.length === 500)
  expect(paths.connections.at(-1)?.sender.outbox.length).toBeLessThan(300_000)
  peer.close()
})

test('a caller that asks for answers to frames and does not read them is cut off', async () => {
  const peer = new RawPeer(paths.port)
  await peer.settled()
  peer.pause()
  const connection = paths.connections.at(-1)
  // What the system takes is beyond counting: the connection is told that it takes nothing.
  vi.spyOn(connection?.socket ?? expect.fail(), 'writableLength', 'get').mockReturnValue(2 ** 30)
  for (let at = 0; at < 70_000; at++) connection?.sender.ping(Buffer.alloc(8), 0, true)
  expect(connection?.socket.writableEnded).toBe(true)
  peer.close()
})
