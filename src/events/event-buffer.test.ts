import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createEventBuffer, type EventBuffer, type EventBufferOptions } from './event-buffer.ts'

/** A buffer of numbers with a clock and a sink that the test moves by hand. */
interface Bench {
  readonly buffer: EventBuffer<number>
  /** Batches in the order in which they went out, and when; an empty one is a check. */
  readonly batches: { readonly events: readonly number[]; readonly atMs: number }[]
  readonly sent: number[]
  readonly dropped: number[]
  readonly changes: (string | undefined)[]
  now(): number
  /** True while the sink has a batch. */
  isBusy(): boolean
  /** Lets the sink end what it has. */
  end(failure?: string): Promise<void>
  /** Moves the clock, and runs what falls due on the way. */
  advance(ms: number): Promise<void>
}

function setUp(options: Partial<EventBufferOptions<number>> = {}): Bench {
  const batches: Bench['batches'] = []
  const sent: number[] = []
  const dropped: number[] = []
  const changes: (string | undefined)[] = []
  const timers = new Set<{ readonly atMs: number; readonly run: () => void }>()
  let nowMs = 0
  let current: PromiseWithResolvers<void> | undefined

  function take(events: readonly number[]): Promise<void> {
    expect(current, 'one batch at a time').toBeUndefined()
    batches.push({ events, atMs: nowMs })
    current = Promise.withResolvers<void>()
    return current.promise
  }

  const buffer = createEventBuffer<number>({
    sink: { send: take, check: () => take([]) },
    onSent: (event) => sent.push(event),
    onDropped: (event) => dropped.push(event),
    onChange: (failing) => changes.push(failing),
    now: () => nowMs,
    setTimer: (run, ms) => {
      const timer = { atMs: nowMs + ms, run }
      timers.add(timer)
      return () => timers.delete(timer)
    },
    random: () => 1,
    ...options,
  })
  return {
    buffer,
    batches,
    sent,
    dropped,
    changes,
    now: () => nowMs,
    isBusy: () => current !== undefined,
    async end(failure) {
      const ending = current
      current = undefined
      if (failure === undefined) ending?.resolve()
      else ending?.reject(new Error(failure))
      await settled()
    },
    async advance(ms) {
      const untilMs = nowMs + ms
      for (;;) {
        const [next] = [...timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)
        if (next === undefined) break
        timers.delete(next)
        nowMs = Math.max(nowMs, next.atMs)
        next.run()
        await settled()
      }
      nowMs = untilMs
    },
  }
}

/** Everything that follows a settled promise has run. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
}

const upTo = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i)

/** Ready for the first batch: the check of the start is over. */
async function ready(options: Partial<EventBufferOptions<number>> = {}): Promise<Bench> {
  const bench = setUp(options)
  await bench.end()
  bench.batches.length = 0
  return bench
}

describe('a batch', () => {
  test('goes out 5 s after its first event', async () => {
    const { buffer, batches, advance } = await ready()
    buffer.publish(1)
    await advance(3_000)
    buffer.publish(2)
    await advance(1_999)
    expect(batches).toEqual([])
    await advance(1)
    expect(batches).toEqual([{ events: [1, 2], atMs: 5_000 }])
  })

  test('goes out at once when 100 events wait, and holds no more', async () => {
    const { buffer, batches, end, advance } = await ready()
    for (const event of upTo(250)) buffer.publish(event)
    await advance(0)
    await end()
    await advance(0)
    await end()
    await advance(4_999)
    expect(batches.map(({ events }) => events)).toEqual([upTo(100), upTo(100, 100)])
    await advance(1)
    expect(batches.at(-1)).toEqual({ events: upTo(50, 200), atMs: 5_000 })
  })

  test('that failed comes again with growing pauses, and nothing overtakes it', async () => {
    const { buffer, batches, sent, changes, end, advance, now } = await ready()
    buffer.publish(1)
    await advance(5_000)
    const pauses: number[] = []
    for (const event of upTo(7, 2)) {
      const failedMs = now()
      await end('away')
      buffer.publish(event)
      await advance(10_000)
      pauses.push((batches.at(-1)?.atMs ?? 0) - failedMs)
    }
    expect(pauses).toEqual([200, 400, 800, 1_600, 3_200, 5_000, 5_000])
    expect(changes).toEqual(['away'])
    expect(buffer.state()).toEqual({ buffered: 8, failing: 'away' })
    await end()
    await advance(5_000)
    await end()
    expect(sent).toEqual(upTo(8, 1))
    expect(changes).toEqual(['away', undefined])
    expect(buffer.state()).toEqual({ buffered: 0, failing: undefined })
  })
})

test('says at the start that its sink is away, and asks until it is not', async () => {
  const { buffer, batches, end, advance } = setUp()
  expect(batches).toEqual([{ events: [], atMs: 0 }])
  await end('away')
  expect(buffer.state()).toEqual({ buffered: 0, failing: 'away' })
  await advance(200)
  expect(batches).toHaveLength(2)
  await end()
  expect(buffer.state()).toEqual({ buffered: 0, failing: undefined })
  await advance(60_000)
  expect(batches).toHaveLength(2)
})

test('10 000 events wait at most; the newest is dropped and told of', async () => {
  const { buffer, sent, dropped, end, advance } = await ready()
  for (const event of upTo(10_002)) buffer.publish(event)
  expect(buffer.state().buffered).toBe(10_000)
  expect(dropped).toEqual([10_000, 10_001])
  await advance(0)
  buffer.publish(10_003)
  expect(dropped).toHaveLength(3)
  await end()
  buffer.publish(10_004)
  expect(buffer.state().buffered).toBe(9_901)
  expect(sent).toEqual(upTo(100))
})

describe('close', () => {
  test('sends what waits and drops what comes after', async () => {
    const { buffer, sent, dropped, end, advance } = await ready()
    for (const event of upTo(150)) buffer.publish(event)
    const closed = buffer.close()
    buffer.publish(150)
    await end()
    await advance(0)
    await end()
    await closed
    expect(sent).toEqual(upTo(150))
    expect(dropped).toEqual([150])
  })

  test('gives up after 3 s, drops what is left, and takes nothing back', async () => {
    const { buffer, sent, dropped, batches, end, advance } = await ready()
    buffer.publish(1)
    const closed = buffer.close()
    await advance(3_000)
    await closed
    expect(dropped).toEqual([1])
    await end()
    await advance(60_000)
    expect({ sent, batches: batches.length, buffered: buffer.state().buffered }).toEqual({
      sent: [],
      batches: 1,
      buffered: 0,
    })
  })

  test('tries once more although it was waiting after a failure', async () => {
    const { buffer, sent, end, advance } = await ready()
    buffer.publish(1)
    await advance(5_000)
    await end('away')
    const closed = buffer.close()
    await end()
    await closed
    expect(sent).toEqual([1])
  })
})

type Step =
  | { readonly kind: 'publish'; readonly count: number }
  | { readonly kind: 'advance'; readonly ms: number }
  | { readonly kind: 'end'; readonly ok: boolean }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('publish' as const), count: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 8_000 }) }),
    fc.record({ kind: fc.constant('end' as const), ok: fc.boolean() }),
  ),
  { maxLength: 60 },
)

test('whatever the sink does: each event is sent once or dropped once, in order, and no bound is passed', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (program) => {
      const bench = setUp({ capacity: 60, batchMax: 10 })
      const { buffer, sent, dropped, batches } = bench
      let next = 0
      for (const step of program) {
        if (step.kind === 'advance') await bench.advance(step.ms)
        else if (step.kind === 'end') await bench.end(step.ok ? undefined : 'away')
        else
          for (let i = 0; i < step.count; i += 1) {
            const isFull = buffer.state().buffered === 60
            const before = dropped.length
            buffer.publish(next)
            expect(dropped.slice(before)).toEqual(isFull ? [next] : [])
            next += 1
          }
        expect(buffer.state().buffered).toBe(next - sent.length - dropped.length)
        expect(buffer.state().buffered).toBeLessThanOrEqual(60)
      }
      const closed = buffer.close()
      while (bench.isBusy()) {
        await bench.end()
        await bench.advance(0)
      }
      await closed
      for (const { events } of batches) expect(events.length).toBeLessThanOrEqual(10)
      expect(sent).toEqual([...sent].sort((a, b) => a - b))
      expect([...sent, ...dropped].sort((a, b) => a - b)).toEqual(upTo(next))
    }),
  )
})

test('with a sink that works, no event waits longer than 5 s', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (program) => {
      const bench = await ready({ batchMax: 10 })
      const published: number[] = []
      let nowMs = 0
      for (const step of program) {
        for (let i = 0; step.kind === 'publish' && i < step.count; i += 1) {
          bench.buffer.publish(published.length)
          published.push(nowMs)
        }
        for (let ms = 0; step.kind === 'advance' && ms < step.ms; ms += 500) {
          await bench.advance(500)
          nowMs += 500
          while (bench.isBusy()) {
            await bench.end()
            await bench.advance(0)
          }
        }
      }
      for (const { events, atMs } of bench.batches)
        for (const event of events) expect(atMs - (published[event] ?? 0)).toBeLessThanOrEqual(5_000)
      for (const [event, atMs] of published.entries()) if (nowMs - atMs > 5_000) expect(bench.sent).toContain(event)
    }),
  )
})
