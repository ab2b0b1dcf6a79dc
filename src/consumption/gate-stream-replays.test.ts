import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type GateStreams, type Heard, hear, startGateStreams } from './gate-stream-support.ts'
import { createResponseCache } from './response-cache.ts'

let streams: GateStreams
beforeAll(async () => {
  streams = await startGateStreams()
})
beforeEach(() => streams.begin())
afterEach(() => streams.end())
afterAll(() => streams?.stop())

describe('an idempotency key', () => {
  const asked = { idempotencyKey: 'order-1' }
  const received = () => streams.practice.backends.reduce((sum, backend) => sum + backend.stats().received, 0)

  test('gives a repetition the same events, end and record, without another call', async () => {
    const first = await hear(streams.ask('out=20', asked))
    const before = received()
    const second = await hear(streams.ask('out=20', asked))
    expect(received()).toBe(before)
    const tail = (heard: Heard) => Buffer.concat(heard.end?.tail ?? []).toString()
    expect(second.text + tail(second)).toBe(first.text + tail(first))
    expect(second.requestId).toBe(first.requestId)
    const { event, charge, finishReason } = first.end ?? {}
    expect(second.end).toMatchObject({ event, charge, finishReason, isReplayed: true })
    await streams.settledAs({ status: 'succeeded' })
  })

  test('lets a repetition wait for the stream that runs', async () => {
    let second: Promise<Heard> | undefined
    const before = received()
    const first = await hear(streams.ask('out=20,pace=10', asked), () => {
      second ??= hear(streams.ask('out=20,pace=10', asked))
    })
    expect((await second)?.end).toMatchObject({ isReplayed: true, event: first.end?.event })
    expect(received()).toBe(before + 1)
  })

  test('is free again when the stream broke off', async () => {
    streams.practice.backends[0]?.failNext('cut=3')
    expect((await hear(streams.ask('', asked))).error).toMatchObject({ reason: 'BACKEND_FAILED' })
    expect((await hear(streams.ask('', asked))).end).toMatchObject({ isReplayed: false })
    expect(await streams.recorded()).toMatchObject([{ status: 'failed' }, { status: 'succeeded' }])
  })

  test('of a stream too large to keep makes no second call either', async () => {
    // The backend repeats the model's name in each event.
    const fault = `out=256,id=${'x'.repeat(5_000)}`
    const { text, end } = await hear(streams.ask(fault, asked))
    expect(end?.event.status).toBe('succeeded')
    expect(text.length).toBeGreaterThan(1_048_576)
    const before = received()
    const { error } = await hear(streams.ask(fault, asked))
    expect(error).toMatchObject({
      reason: 'IDEMPOTENT_ANSWER_NOT_KEPT',
      metadata: { requestId: end?.event.requestId },
    })
    expect(received()).toBe(before)
  })
})

describe('the response cache', () => {
  const service = { responseCache: { ttlMs: 60_000, sharing: 'organization' } } as const

  test('replays a whole stream to its end, as a request that uses nothing', async () => {
    const setting = { service, cache: createResponseCache(1_048_576, Date.now) }
    const first = await hear(streams.ask('out=20', setting))
    const second = await hear(streams.ask('out=20', setting))
    const all = ({ text, end }: Heard) => text + Buffer.concat(end?.tail ?? []).toString()
    expect(all(second)).toBe(all(first))
    expect(await streams.recorded()).toMatchObject([
      { usageSource: 'provider' },
      { usageSource: 'cache', costNanos: 0 },
    ])
  })

  test.each(['cut=5', 'end=5', 'malformed=5'])('keeps nothing of a stream that broke off (%s)', async (fault) => {
    const cache = createResponseCache(1_048_576, Date.now)
    await hear(streams.ask(fault, { service, cache }))
    expect(cache.size().answers).toBe(0)
  })
})
