import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { testCall } from '../../test/support/invoke.ts'
import { type PracticeDispatch, startPracticeDispatch, streamTask } from '../../test/support/practice-dispatch.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { type Reason, TollgateError } from '../errors.ts'
import type { EndpointRecord } from '../registry/records.ts'
import type { Opened } from './dispatcher.ts'
import type { Failure } from './retry-table.ts'

let practice: PracticeDispatch
let calls = 0

beforeAll(async () => {
  practice = await startPracticeDispatch(3)
})
beforeEach(() => practice.renew())
afterAll(() => practice?.stop())

const deadlines: Partial<EndpointRecord> = { headersTimeoutMs: 5_000, firstTokenTimeoutMs: 5_000, idleTimeoutMs: 1_000 }

function payload(model: string): Uint8Array {
  return new TextEncoder().encode(
    JSON.stringify({ model, stream: true, max_tokens: 32, messages: [{ role: 'user', content: 'x' }] }),
  )
}

function open(model: string, endpoint = deadlines): Promise<Opened> {
  const task = streamTask(payload(model), `stream-${++calls}`)
  return practice.dispatcher.open(practice.service(endpoint), task, testCall())
}

/** Reads a stream to its end. */
async function readAll(opened: Opened) {
  if ('error' in opened) throw opened.error
  let text = ''
  for await (const pieces of opened.value.pieces) for (const { bytes } of pieces) text += Buffer.from(bytes).toString()
  const end = await opened.value.end
  const tail = end.verdict === 'complete' ? Buffer.from(end.tail).toString() : ''
  return { text, tail, end, report: opened.value.report(), attempt: await opened.over }
}

const tokens = (text: string): number => text.split('"delta":{"content":').length - 1

test('a stream arrives as it is, with its usage, and says when it began', async () => {
  const opened = await open('practice')
  const { text, tail, end, report, attempt } = await readAll(opened)
  expect(end.verdict).toBe('complete')
  expect(tokens(text)).toBeGreaterThan(3)
  expect(tail).toContain('data: [DONE]')
  expect(report).toMatchObject({ usageSource: 'provider', finishReason: expect.stringMatching(/stop|length/) })
  expect(attempt).toMatchObject({ number: 1, endpointId: '0', status: 200, error: undefined })
  expect(attempt.firstTokenMs).toBeGreaterThanOrEqual(attempt.headersMs ?? 0)
  expect(attempt.receivedBytes).toBeGreaterThan(text.length)
  expect(practice.attempted).toEqual(['0 ok'])
})

describe('a failure before the first output is invisible: the stream is that of another endpoint', () => {
  test.each<[string, Failure]>([
    ['status=500', 'server_error'],
    ['status=503,retry-after=60', 'unavailable'],
    ['status=429', 'busy'],
    ['status=401', 'credential_refused'],
    ['reset', 'reset'],
    ['html', 'invalid_answer'],
    ['empty', 'invalid_answer'],
    ['cut=0', 'cut'],
    ['end=0', 'cut'],
    ['malformed=0', 'invalid_answer'],
    ['stall=0', 'idle_timeout'],
  ])('%s', async (fault, failure) => {
    const whole = await readAll(await open('practice'))
    await practice.renew()
    practice.backends[0]?.failNext(fault)
    const opened = await open('practice')
    const { text, end } = await readAll(opened)
    expect(end.verdict).toBe('complete')
    expect(tokens(text)).toBe(tokens(whole.text))
    expect(practice.attempted).toEqual([`0 ${failure}`, '1 ok'])
    expect(opened.attempts.map(({ number, endpointId }) => [number, endpointId])).toEqual([
      [1, '0'],
      [2, '1'],
    ])
  })

  test('silence before the headers, and before the first output', async () => {
    for (const [fault, failure, endpoint] of [
      ['silence', 'headers_timeout', { headersTimeoutMs: 100 }],
      ['slow-first-token=60000,missing-usage', 'first_token_timeout', { firstTokenTimeoutMs: 100 }],
    ] as const) {
      await practice.renew()
      practice.backends[0]?.failNext(fault)
      expect((await readAll(await open('practice', endpoint))).end.verdict).toBe('complete')
      expect(practice.attempted).toEqual([`0 ${failure}`, '1 ok'])
    }
  })

  test.each<[string, Reason, number]>([
    ['status=400', 'BACKEND_REJECTED', 1],
    ['status=500', 'BACKEND_FAILED', 3],
    ['cut=0', 'BACKEND_FAILED', 3],
    ['empty', 'BACKEND_ANSWER_INVALID', 3],
    ['html', 'BACKEND_ANSWER_INVALID', 3],
  ])('%s at every endpoint is its error, and no stream', async (fault, reason, attempts) => {
    const opened = await open(`practice:${fault}`)
    expect(opened).toMatchObject({ error: { reason } })
    expect(opened.attempts).toHaveLength(attempts)
  })
})

test('the deadline for the first output is none for what follows it', async () => {
  const endpoint = { firstTokenTimeoutMs: 400, idleTimeoutMs: 400 }
  const { text, end } = await readAll(await open('practice:pace=40,out=20', endpoint))
  expect(end.verdict).toBe('complete')
  expect(tokens(text)).toBe(20)
})

describe('a failure after the first output ends the stream with its error, and nothing is tried again', () => {
  test.each<[string, Failure, Reason]>([
    ['cut=3', 'cut', 'BACKEND_FAILED'],
    ['end=3', 'cut', 'BACKEND_FAILED'],
    ['stall=3', 'idle_timeout', 'BACKEND_TIMEOUT'],
    ['malformed=3', 'invalid_answer', 'BACKEND_ANSWER_INVALID'],
  ])('%s', async (fault, failure, reason) => {
    const { text, end, report, attempt } = await readAll(await open(`practice:${fault}`))
    expect(end.verdict).not.toBe('complete')
    expect('error' in end ? end.error : undefined).toMatchObject({ reason })
    expect(tokens(text)).toBe(3)
    expect(report.usageSource).toBe('partial')
    expect(attempt.error?.reason).toBe(reason)
    expect(practice.attempted).toEqual([`0 ${failure}`])
  })

  test('and five of them open the breaker', async () => {
    for (let i = 0; i < 5; i += 1) await readAll(await open('practice:cut=3'))
    expect(practice.dispatcher.breakers()).toMatchObject([{ endpointId: '0', state: 'open' }])
    await readAll(await open('practice'))
    expect(practice.attempted.at(-1)).toBe('1 ok')
  })
})

test('a caller that leaves after the third token ends the backend’s call and the stream', async () => {
  const caller = new AbortController()
  const call = testCall(undefined, { signal: caller.signal })
  const service = practice.service({}, 1)
  const opened = await practice.dispatcher.open(service, streamTask(payload('practice:pace=50'), 'left'), call)
  if ('error' in opened) throw opened.error
  let seen = 0
  for await (const pieces of opened.value.pieces) {
    seen += pieces.filter(({ hasOutput }) => hasOutput).length
    if (seen >= 3) caller.abort(new TollgateError('CANCELLED', 'gone'))
  }
  expect(await opened.value.end).toMatchObject({ verdict: 'cut', error: { reason: 'CANCELLED' } })
  expect((await opened.over).error?.reason).toBe('CANCELLED')
  await eventually(() => practice.backends[0]?.stats().inFlight === 0)
  expect(practice.dispatcher.breakers()).toMatchObject([{ state: 'closed' }])
})

describe('before a backend of its own', () => {
  const event = (text: string): string => `data: {"choices":[{"index":0,"delta":{"content":"${text}"}}]}\n\n`
  const finish = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
  let backend: Server
  let connections = 0
  let play: (response: ServerResponse) => void

  beforeAll(async () => {
    backend = createServer((request, response) => {
      request.resume()
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      play(response)
    })
    backend.on('connection', () => {
      connections += 1
    })
    await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  })
  afterAll(() => {
    backend.closeAllConnections()
    backend.close()
  })

  function openHere(changes: Partial<EndpointRecord> = {}): Promise<Opened> {
    const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1/chat/completions`
    const service = serviceRecord({ endpoints: [endpointRecord({ url, ...changes })] })
    return practice.dispatcher.open(service, streamTask(payload('m'), 'own'), testCall())
  }

  test('a slow reader makes the backend wait, which is no silence of the backend, and gets everything', async () => {
    const big = event('x'.repeat(100_000))
    let written = 0
    let stopped = false
    const waited = Promise.withResolvers<void>()
    play = async (response) => {
      for (; written < 600; written += 1) {
        if (response.write(big)) continue
        const drained = new Promise<void>((resolve) => response.once('drain', resolve))
        const timer = setTimeout(() => {
          stopped = true
          waited.resolve()
        }, 2_000)
        await drained
        clearTimeout(timer)
      }
      response.end(finish)
    }
    const opened = await openHere({ idleTimeoutMs: 1_500 })
    await waited.promise
    expect(stopped).toBe(true)
    // What fits into the sockets, and little more, of 60 MB.
    expect(written).toBeLessThan(300)
    const { text, end } = await readAll(opened)
    expect(end.verdict).toBe('complete')
    expect(tokens(text)).toBe(600)
  })

  test('a stream that is over gives its connection back, also to a backend that is slow to end it', async () => {
    const before = connections
    play = (response) => {
      response.write(event('a'))
      response.write(finish)
      setImmediate(() => response.end())
    }
    for (let i = 0; i < 3; i += 1) {
      const opened = await openHere()
      expect((await readAll(opened)).end.verdict).toBe('complete')
      // The end marker is the end for the caller; the connection is free when the body is.
      await eventually(() => practice.attempted.length === i + 1)
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(connections - before).toBeLessThanOrEqual(2)
  })

  test('calls that wait in vain for a free connection say so, and nothing about the backend', async () => {
    await practice.renew({ connectionsPerHost: 2 })
    const running: ServerResponse[] = []
    play = (response) => {
      running.push(response)
      response.write(event('a'))
    }
    const long = [await openHere(), await openHere()]
    for (let i = 0; i < 6; i += 1) {
      const opened = await openHere({ timeoutMs: 20 })
      expect(opened).toMatchObject({
        error: { reason: 'BACKEND_UNREACHABLE', metadata: { failure: 'no_free_connection', timeoutMs: '20' } },
      })
      expect('error' in opened && opened.error.message).toContain('BACKEND_CONNECTIONS_PER_HOST')
    }
    expect(practice.dispatcher.breakers()).toMatchObject([{ state: 'closed' }])
    expect(running).toHaveLength(2)
    for (const response of running) response.end(finish)
    for (const opened of long) expect((await readAll(opened)).end.verdict).toBe('complete')
  })

  test('output that comes before anybody asks for it waits in its order', async () => {
    play = (response) => response.end(event('a') + event('b') + event('c') + finish)
    const { text } = await readAll(await openHere())
    expect(text.match(/"content":"\w"/g)).toEqual(['"content":"a"', '"content":"b"', '"content":"c"'])
  })
})
