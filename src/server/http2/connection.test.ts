import { once } from 'node:events'
import { constants } from 'node:http2'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { type Exchange, noBytes } from '../exchange.ts'
import { until } from '../fixture.ts'
import {
  allRoom,
  answer,
  ask,
  asked,
  frame,
  number,
  type PathServer,
  RawPeer,
  serveHttp2,
  startPathServer,
} from './fixture.ts'
import { flags, frameTypes, uint31 } from './frames.ts'

/** A connection, called by Node's client; where that one is too well-behaved, by frames. */

const { data, rstStream, goAway } = frameTypes

let paths: PathServer
beforeAll(async () => {
  paths = await startPathServer()
})
afterEach(() => paths.forget())
afterAll(() => paths.close())

test('a thousand calls at once on one connection are answered, each with its own', async () => {
  const on = paths.session()
  await once(on, 'remoteSettings')
  const asked = Array.from({ length: 1000 }, (_, at) => Buffer.from(`call ${at} `.repeat(1 + (at % 50))))
  const answers = await Promise.all(asked.map((body) => ask(on, '/echo', body)))
  for (const [at, { body }] of answers.entries()) expect(Buffer.compare(body, asked[at] ?? noBytes)).toBe(0)
})

test('a caller without a dynamic table is served', async () => {
  const on = paths.session({ settings: { headerTableSize: 0 } })
  await once(on, 'localSettings')
  for (let round = 0; round < 3; round++) expect((await ask(on, '/')).body.toString()).toBe('ok')
  on.settings({ headerTableSize: 100 })
  await once(on, 'localSettings')
  expect((await ask(on, '/')).body.toString()).toBe('ok')
})

describe('a connection that is drained', () => {
  test('takes what is on its way, finishes its calls, and closes', async () => {
    const peer = new RawPeer(paths.port)
    peer.send(asked('/held', 1))
    await until(() => paths.exchanges.length === 1)
    paths.connections.at(-1)?.drain()
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
    const [exchange] = paths.exchanges
    if (exchange !== undefined) answer(exchange, Buffer.from('ok'))
    expect((await peer.first(data, 1))?.payload.toString()).toBe('ok')
    await peer.until(() => false)
  })

  test('closes when its caller resets the last call', async () => {
    const peer = new RawPeer(paths.port)
    peer.send(asked('/held', 1))
    await until(() => paths.exchanges.length === 1)
    paths.connections.at(-1)?.drain()
    const ping = await peer.first(frameTypes.ping)
    if (ping !== undefined) peer.send(frame(frameTypes.ping, flags.ack, 0, ping.payload))
    await peer.until(() => peer.frames.filter(({ type }) => type === goAway).length === 2)
    peer.send(frame(rstStream, 0, 1, number(constants.NGHTTP2_CANCEL)))
    await peer.until(() => false)
    expect(peer.goneWith).toBe(0)
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
    const on = paths.session()
    const answering = ask(on, '/held')
    await until(() => paths.exchanges.length === 1)
    const connection = paths.connections.at(-1)
    connection?.drain()
    await once(on, 'goaway')
    const [exchange] = paths.exchanges
    if (exchange !== undefined) answer(exchange, Buffer.from('ok'))
    expect((await answering).body.toString()).toBe('ok')
    await until(() => connection?.socket.destroyed === true)
  })
})

test('a ping that is not answered until the next one says so', async () => {
  const peer = new RawPeer(paths.port)
  await peer.settled()
  const connection = paths.connections.at(-1)
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
