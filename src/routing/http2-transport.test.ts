import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type CutProxy, startCutProxy } from '../../test/support/cut-proxy.ts'
import { eventually } from '../../test/support/eventually.ts'
import { answerGrpc, type GrpcUpstream, startGrpcUpstream } from '../../test/support/grpc-upstream.ts'
import { createHttp2Transport, type Http2Options } from './http2-transport.ts'
import type { Transport, TransportController } from './transport.ts'

const never = 3_600_000

let upstream: GrpcUpstream
let proxy: CutProxy
let transports: Transport[]

beforeEach(async () => {
  upstream = await startGrpcUpstream()
  const { hostname: host, port } = new URL(upstream.url)
  proxy = await startCutProxy({ upstream: () => ({ host, port: Number(port) }) })
  transports = []
})
afterEach(async () => {
  proxy.cut()
  await upstream.close()
  await Promise.all(transports.map((transport) => transport.close()))
  await proxy.close()
})

function create(options: Partial<Http2Options> = {}): Transport {
  const origin = `http://127.0.0.1:${proxy.port}`
  const settings = { origin, connectTimeoutMs: 5_000, maxConnections: 3, pingMs: never, idleMs: never }
  const transport = createHttp2Transport({ ...settings, ...options })
  transports.push(transport)
  return transport
}

/** What was told of a call, in order; `over` resolves with the last word. */
interface Told {
  readonly events: string[]
  readonly over: Promise<string>
  controller: TransportController | undefined
}

function call(transport: Transport): Told {
  const over = Promise.withResolvers<string>()
  const told: Told = { events: [], over: over.promise, controller: undefined }
  const tell = (event: string): number => told.events.push(event)
  transport.dispatch(
    { path: '/x', method: 'POST', headers: {}, body: Buffer.from('body') },
    {
      onRequestStart(controller) {
        told.controller = controller
        tell('start')
      },
      onResponseStart: (_, status) => void tell(String(status)),
      onResponseData: (_, chunk) => void tell(chunk.toString()),
      onResponseEnd: (_, trailers) => over.resolve(`end ${trailers['grpc-status']}`),
      onResponseError: (_, error) => over.resolve('code' in error ? String(error.code) : error.message),
    },
  )
  return told
}

function answerAll(): void {
  upstream.answer = (stream) => answerGrpc(stream, [Buffer.from('abc')], { 'grpc-status': '0' })
}

function holdAll(): void {
  upstream.answer = () => {}
}

describe('a connection', () => {
  test('that answers no PING is given up with its calls, and the next call gets another', async () => {
    const transport = create({ pingMs: 20, pingTimeoutMs: 100 })
    holdAll()
    const waiting = [call(transport), call(transport)]
    await eventually(() => upstream.calls.length === 2)
    proxy.stall()
    expect(await Promise.all(waiting.map(({ over }) => over))).toEqual(['UND_ERR_SOCKET', 'UND_ERR_SOCKET'])
    proxy.heal()
    answerAll()
    expect(await call(transport).over).toBe('end 0')
    expect(upstream.sessions).toHaveLength(2)
  })

  test('is asked at once when a call on it was given up', async () => {
    const transport = create({ pingTimeoutMs: 100 })
    holdAll()
    const [first, second] = [call(transport), call(transport)]
    await eventually(() => upstream.calls.length === 2)
    proxy.stall()
    first.controller?.abort(new Error('waited too long'))
    expect(await second.over).toBe('UND_ERR_SOCKET')
  })

  test('with a server that computes for long is kept', async () => {
    let pings = 0
    const transport = create({ pingMs: 20, pingTimeoutMs: 10_000 })
    holdAll()
    const long = call(transport)
    await eventually(() => upstream.calls.length === 1)
    upstream.sessions[0]?.on('ping', () => {
      pings += 1
    })
    await eventually(() => pings >= 3)
    answerAll()
    expect(await call(transport).over).toBe('end 0')
    expect(long.events).toEqual(['start'])
    expect(upstream.sessions).toHaveLength(1)
  })

  test('without calls is closed after a while', async () => {
    const transport = create({ idleMs: 30 })
    answerAll()
    expect(await call(transport).over).toBe('end 0')
    await eventually(() => upstream.sessions[0]?.destroyed === true)
    expect(await call(transport).over).toBe('end 0')
    expect(upstream.sessions).toHaveLength(2)
  })

  test('takes a hundred calls, then another one is opened, until there are as many as may be', async () => {
    const transport = create()
    holdAll()
    for (let n = 0; n < 450; n += 1) call(transport)
    await eventually(() => upstream.calls.length === 450)
    expect(upstream.sessions).toHaveLength(3)
  })

  test('that does not come about within its deadline fails its calls', async () => {
    const server = createServer((socket) => socket.on('error', () => {}).resume())
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = address === null || typeof address === 'string' ? 0 : address.port
    const transport = create({ origin: `https://127.0.0.1:${port}`, connectTimeoutMs: 50 })
    const calls = [call(transport), call(transport)]
    expect(await Promise.all(calls.map(({ over }) => over))).toEqual(Array(2).fill('UND_ERR_CONNECT_TIMEOUT'))
    expect(calls.flatMap(({ events }) => events)).toEqual([])
    await new Promise((resolve) => server.close(resolve))
  })

  test('is closed when its calls are over', async () => {
    const transport = create()
    let finish = (): void => {}
    upstream.answer = (stream) => {
      finish = () => answerGrpc(stream, [Buffer.from('abc')], { 'grpc-status': '0' })
    }
    const last = call(transport)
    await eventually(() => upstream.calls.length === 1)
    const closed = transport.close()
    finish()
    expect(await last.over).toBe('end 0')
    await closed
    expect(upstream.sessions[0]?.destroyed || upstream.sessions[0]?.closed).toBe(true)
  })
})

describe('a call that the server did not process', () => {
  const refused = 7

  test('goes out again, once', async () => {
    upstream.answer = (stream) => {
      answerAll()
      stream.close(refused)
    }
    const told = call(create())
    expect(await told.over).toBe('end 0')
    expect(told.events).toEqual(['start', 'start', '200', 'abc'])
  })

  test('fails when it is refused again', async () => {
    upstream.answer = (stream) => stream.close(refused)
    expect(await call(create()).over).toBe('UND_ERR_SOCKET')
    expect(upstream.calls).toHaveLength(2)
  })
})

describe('a call that is given up', () => {
  test('is told nothing more', async () => {
    upstream.answer = (stream) => {
      stream.respond({ ':status': 200 })
      stream.write('abc')
    }
    const told = call(create())
    await eventually(() => told.events.includes('abc'))
    told.controller?.abort(new Error('enough'))
    await eventually(() => upstream.aborted.length === 1)
    expect(upstream.aborted[0]?.rstCode).toBe(8)
    expect(told.events).toEqual(['start', '200', 'abc'])
  })
})
