import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import { noBytes } from '../exchange.ts'
import { until } from '../fixture.ts'
import {
  allRoom,
  answer,
  ask,
  asked,
  frame,
  type PathServer,
  RawPeer,
  serveHttp2,
  setting,
  startPathServer,
} from './fixture.ts'
import { frameTypes, settingIds } from './frames.ts'

/** How answers leave: in the room that there is for them, and in whose turn. */

const { data, headers, settings, windowUpdate } = frameTypes

let paths: PathServer
beforeAll(async () => {
  paths = await startPathServer()
})
afterEach(() => paths.forget())
afterAll(() => paths.close())

const large = Buffer.alloc(3_000_000, 'large bodies come and go in parts; ')

test.each([1, 1000, 65_535, 2 ** 31 - 1])('large bodies pass both ways with a window of %d bytes', async (window) => {
  const on = paths.session({ settings: { initialWindowSize: window } })
  const body = window === 1 ? large.subarray(0, 3000) : large
  for (const path of ['/echo', '/relay']) expect(Buffer.compare((await ask(on, path, body)).body, body)).toBe(0)
})

test('a caller may take back the room that it gave while an answer is under way', async () => {
  const peer = new RawPeer(paths.port)
  const room = (bytes: number) => frame(settings, 0, 0, setting(settingIds.initialWindowSize, bytes))
  const more = (id: number, bytes: number) => frame(windowUpdate, 0, id, Buffer.from([0, 0, bytes >> 8, bytes]))
  const received = () => peer.frames.reduce((sum, { type, payload }) => sum + (type === data ? payload.length : 0), 0)
  peer.send(room(100), asked('/bytes/300', 1))
  await peer.settled()
  expect(received()).toBe(100)
  // 70 bytes below zero, and back to 10 above it.
  peer.send(room(30), more(1, 80))
  await peer.settled()
  expect(received()).toBe(110)
  peer.send(room(230))
  await peer.first(headers, 1)
  await peer.until(() => peer.frames.filter(({ type, id }) => type === headers && id === 1).length === 2)
  expect(received()).toBe(300)
  peer.close()
})

test('a slow reader holds back its own answer, and no other', async () => {
  const on = paths.session()
  const slow = on.request({ ':path': '/held' })
  await until(() => paths.exchanges.length === 1)
  const [exchange] = paths.exchanges
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

test('what was taken, or never will be, waits no more', async () => {
  const peer = new RawPeer(paths.port)
  peer.send(asked('/bytes/70000', 1), asked('/bytes/30000', 3))
  await peer.settled()
  const sender = paths.connections.at(-1)?.sender
  // All but what there is room for at the begin of a connection.
  expect(sender?.unsent).toBe(100_000 - 65_535)
  peer.send(frame(frameTypes.rstStream, 0, 3, Buffer.alloc(4)))
  await peer.settled()
  expect(sender?.unsent).toBe(70_000 - 65_535)
  peer.send(allRoom())
  await peer.settled()
  expect(sender?.unsent).toBe(0)
  peer.close()
})

test('a small answer does not wait for a large one', async () => {
  const on = paths.session({ settings: { initialWindowSize: 2 ** 31 - 1 } })
  on.once('connect', () => on.setLocalWindowSize(2 ** 31 - 1))
  const order: string[] = []
  const huge = ask(on, '/bytes/30000000').then(() => order.push('large'))
  const tiny = ask(on, '/bytes/20000').then(() => order.push('small'))
  await Promise.all([huge, tiny])
  expect(order).toEqual(['small', 'large'])
})

test('streams that share what room there is take turns, however often one asks', async () => {
  const peer = new RawPeer(paths.port)
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
  const peer = new RawPeer(paths.port)
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
  const on = paths.session()
  const answers = Array.from({ length: 20 }, () => ask(on, '/held'))
  await until(() => paths.exchanges.length === 20)
  const socket = paths.connections.at(-1)?.socket
  const written = vi.spyOn(socket ?? expect.fail(), 'write')
  for (const exchange of paths.exchanges) answer(exchange, Buffer.from('ok'))
  await Promise.all(answers)
  expect(written).toHaveBeenCalledOnce()
})

test('what a caller did not read yet is not overwritten by what others get', async () => {
  const peer = new RawPeer(paths.port)
  peer.send(allRoom())
  await peer.settled()
  peer.pause()
  const connection = paths.connections.at(-1)
  let calls = 0
  while ((connection?.socket.writableLength ?? 1) === 0) {
    peer.send(...Array.from({ length: 100 }, () => asked(`/fill/${calls % 200}`, 2 * calls++ + 1)))
    await until(() => paths.exchanges.length === calls)
  }
  const others = paths.session()
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
