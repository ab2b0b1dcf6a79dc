import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { systemActor } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { newId } from '../ids.ts'
import type { DomainEvent } from './domain-event.ts'
import type { Delivery, OutboxSink } from './outbox-sink.ts'
import { type Relay, type RelayOptions, startRelay } from './relay.ts'
import { reviveDeadLetters, rewindSink, selectDeadLetters, selectSinkStatus } from './sink-store.ts'

let server: PostgresServer
let relays: Relay[] = []
/** What arrived at the sink of the test, in order. */
let arrived: DomainEvent[]
/** What the sink says of an event. */
let answer: (event: DomainEvent) => Delivery
/** Thrown by the sink before anything arrives. */
let outage: Error | undefined
let sinkName: string

beforeAll(async () => {
  server = await startPostgresServer({ owned: true })
})
afterAll(() => server?.stop())
beforeEach(() => {
  sinkName = newId()
  arrived = []
  answer = () => 'delivered'
  outage = undefined
})
afterEach(async () => {
  await Promise.all(relays.map((relay) => relay.stop()))
  relays = []
})

const refused = { reason: 'HTTP 500', isFinal: false, retryAfterMs: undefined }

function sink(): OutboxSink {
  return {
    name: sinkName,
    async deliver(events) {
      if (outage !== undefined) throw outage
      const failed = new Set<string>()
      return events.map((event) => {
        if (failed.has(event.subject)) return 'held_back'
        const delivery = answer(event)
        if (delivery === 'delivered') arrived.push(event)
        else failed.add(event.subject)
        return delivery
      })
    },
    close: async () => {},
  }
}

async function start(options: Partial<RelayOptions> = {}): Promise<Relay> {
  const relay = startRelay({
    sql: server.sql,
    sink: sink(),
    holder: newId(),
    source: '/test',
    log: silentLog,
    observer: { delivered: () => {}, failed: () => {}, died: () => {} },
    giveUpMs: 3_600_000,
    pollMs: 20,
    leaseMs: 5_000,
    retryMinMs: 5,
    retryMaxMs: 40,
    awayMaxMs: 40,
    ...options,
  })
  relays.push(relay)
  // Only what comes after the sink's first moment is told.
  await eventually(async () => (await selectSinkStatus(server.sql, [sinkName])).length === 1)
  return relay
}

function change(id: string, nth: number): Promise<number> {
  const after = { nth }
  return server.sql.begin((tx) =>
    recordChange(tx, systemActor('test'), { type: 'service.updated', id, organizationId: '', after }),
  )
}

/** Numbers of the events of a resource, repetitions left out. */
function numbersOf(id: string): unknown[] {
  const own = arrived.filter(({ subject }) => subject === `service/${id}`)
  return [...new Map(own.map((event) => [event.id, event])).values()].map(({ data }) =>
    Reflect.get(Object(data.resource), 'nth'),
  )
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

describe('events arrive', () => {
  test('each once, those of a resource in order, whoever writes at once', async () => {
    await start()
    const ids = upTo(6).map(() => newId())
    const writer = async (id: string): Promise<void> => {
      for (const nth of upTo(25)) await change(id, nth)
    }
    await Promise.all(ids.map(writer))
    await eventually(() => arrived.length >= 150)
    for (const id of ids) expect(numbersOf(id)).toEqual(upTo(25))
    expect(arrived).toHaveLength(150)
    expect(arrived[0]).toEqual({
      specversion: '1.0',
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      source: '/test',
      type: 'tollgate.service.updated',
      subject: expect.stringMatching(/^service\//),
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      partitionkey: arrived[0]?.subject,
      sequence: String(arrived[0]?.data.position).padStart(19, '0'),
      datacontenttype: 'application/json',
      data: { position: expect.any(Number), actor: 'system:test', requestId: '', resource: { nth: 0 } },
    })
    const [status] = await eventually(async () => {
      const statuses = await selectSinkStatus(server.sql, [sinkName])
      return statuses[0]?.behind === 0 && statuses
    })
    expect(status).toMatchObject({ waiting: 0, deadLetters: 0, lagSeconds: 0 })
  })

  test('a resource whose event fails holds up no other, and arrives in order afterwards', async () => {
    const [bad, good] = [newId(), newId()]
    answer = ({ subject }) => (subject === `service/${bad}` ? refused : 'delivered')
    await start()
    for (const nth of upTo(10)) {
      await change(bad, nth)
      await change(good, nth)
    }
    await eventually(() => numbersOf(good).length === 10)
    expect(numbersOf(bad)).toEqual([])
    await eventually(async () => {
      const [status] = await selectSinkStatus(server.sql, [sinkName])
      return status?.waiting === 10 && status.behind === 0 && status.lagSeconds > 0
    })
    answer = () => 'delivered'
    await eventually(() => numbersOf(bad).length === 10)
    expect(numbersOf(bad)).toEqual(upTo(10))
    expect(numbersOf(good)).toEqual(upTo(10))
    expect(arrived).toHaveLength(20)
  })

  test('none before an earlier one of its resource that waits', async () => {
    const [bad, good] = [newId(), newId()]
    answer = ({ data }) => (Reflect.get(Object(data.resource), 'nth') === 0 ? refused : 'delivered')
    await start({ retryMinMs: 3_600_000, retryMaxMs: 3_600_000, random: () => 1 })
    await change(bad, 0)
    await eventually(async () => (await selectSinkStatus(server.sql, [sinkName]))[0]?.waiting === 1)
    await change(bad, 1)
    await change(good, 1)
    await eventually(() => numbersOf(good).length === 1)
    expect(numbersOf(bad)).toEqual([])
  })

  test('all that waits at once when the sink takes events again', async () => {
    const ids = upTo(8).map(() => newId())
    answer = () => refused
    const relay = await start({ retryMinMs: 3_600_000, retryMaxMs: 3_600_000, random: () => 1 })
    for (const id of ids) await change(id, 0)
    await eventually(() => relay.failing() === 'HTTP 500')
    answer = () => 'delivered'
    const last = newId()
    await change(last, 0)
    await eventually(() => arrived.length === 9)
  })

  test('anew from where a replay began while others were on their way', async () => {
    const id = newId()
    await start()
    const first = await change(id, 0)
    await eventually(() => arrived.length === 1)
    await relays.pop()?.stop()
    const onTheWay = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    const slow = sink()
    await start({
      sink: {
        ...slow,
        async deliver(events, signal) {
          onTheWay.resolve()
          await released.promise
          return slow.deliver(events, signal)
        },
      },
    })
    await change(id, 1)
    await onTheWay.promise
    await server.sql.begin((tx) => rewindSink(tx, sinkName, first - 1))
    released.resolve()
    await eventually(() => arrived.length === 4)
    expect(arrived.map(({ data }) => Reflect.get(Object(data.resource), 'nth'))).toEqual([0, 1, 0, 1])
  })

  test('a sink that was away gets everything in order', async () => {
    const ids = [newId(), newId(), newId()]
    outage = new Error('connect ECONNREFUSED')
    const relay = await start()
    for (const nth of upTo(30)) for (const id of ids) await change(id, nth)
    await eventually(() => relay.failing() === 'connect ECONNREFUSED')
    outage = undefined
    await eventually(() => arrived.length >= 90)
    for (const id of ids) expect(numbersOf(id)).toEqual(upTo(30))
    expect(arrived).toHaveLength(90)
    expect(relay.failing()).toBeUndefined()
  })

  test('one that nothing takes does not make the sink count as away for the others', async () => {
    const [bad, good] = [newId(), newId()]
    answer = ({ subject }) => (subject === `service/${bad}` ? refused : 'delivered')
    const relay = await start()
    await change(bad, 0)
    await eventually(() => relay.failing() === 'HTTP 500')
    for (const nth of upTo(5)) await change(good, nth)
    await eventually(() => numbersOf(good).length === 5)
  })

  test('from the oldest that is kept on, where the sink begins there', async () => {
    const id = newId()
    for (const nth of upTo(3)) await change(id, nth)
    await start()
    await change(id, 3)
    await eventually(() => numbersOf(id).length === 1)
    expect(numbersOf(id)).toEqual([3])
    sinkName = newId()
    arrived = []
    await start({ sink: { ...sink(), beginsAt: 'oldest' } })
    await eventually(() => numbersOf(id).length === 4)
    expect(numbersOf(id)).toEqual(upTo(4))
  })

  test('after Postgres was killed', async () => {
    const id = newId()
    await start()
    for (const nth of upTo(5)) await change(id, nth)
    await server.kill9()
    await server.restart()
    for (const nth of upTo(5)) await eventually(() => change(id, 5 + nth))
    await eventually(() => numbersOf(id).length === 10)
    expect(numbersOf(id)).toEqual(upTo(10))
  })
})

describe('one process delivers', () => {
  test('and when it ends, another one goes on', async () => {
    const id = newId()
    const first = await start()
    await start()
    for (const nth of upTo(10)) await change(id, nth)
    await eventually(() => arrived.length >= 10)
    await first.stop()
    for (const nth of upTo(10)) await change(id, 10 + nth)
    await eventually(() => arrived.length >= 20)
    expect(numbersOf(id)).toEqual(upTo(20))
    expect(arrived).toHaveLength(20)
  })

  test('and when it is silent for longer than its lease, another one begins where it was', async () => {
    await start()
    await relays.pop()?.stop()
    await server.sql`
      update event_sinks set holder = 'dead', held_until = now() + interval '1 second' where name = ${sinkName}`
    const id = newId()
    await start()
    await change(id, 0)
    const [held] = await selectSinkStatus(server.sql, [sinkName])
    expect(held).toMatchObject({ holder: 'dead' })
    await eventually(() => arrived.length === 1)
    expect(await selectSinkStatus(server.sql, [sinkName])).not.toMatchObject([{ holder: 'dead' }])
  })
})

describe('a dead letter', () => {
  test('is what the sink refuses for good, and later events of the resource go on', async () => {
    const id = newId()
    answer = ({ data }) =>
      Reflect.get(Object(data.resource), 'nth') === 1 ? { ...refused, isFinal: true } : 'delivered'
    await start()
    for (const nth of upTo(4)) await change(id, nth)
    await eventually(() => numbersOf(id).length === 3)
    expect(numbersOf(id)).toEqual([0, 2, 3])
    expect(await selectDeadLetters(server.sql, sinkName, 0, 10)).toMatchObject([
      { resource_id: id, attempts: 1, last_error: 'HTTP 500', type: 'service.updated' },
    ])
  })

  test('is what was attempted for too long', async () => {
    const id = newId()
    answer = ({ data }) => (Reflect.get(Object(data.resource), 'nth') === 0 ? refused : 'delivered')
    let died = 0
    const observer = {
      delivered: () => {},
      failed: () => {},
      died: () => {
        died += 1
      },
    }
    await start({ giveUpMs: 300, observer })
    for (const nth of upTo(3)) await change(id, nth)
    await eventually(() => numbersOf(id).length === 2)
    expect(numbersOf(id)).toEqual([1, 2])
    const [letter] = await selectDeadLetters(server.sql, sinkName, 0, 10)
    expect(letter?.attempts).toBeGreaterThan(1)
    expect(died).toBe(1)
  })

  test('is sent again without the others, when only that is asked for', async () => {
    const [one, other] = [newId(), newId()]
    answer = () => ({ ...refused, isFinal: true })
    await start()
    const position = await change(one, 0)
    await change(other, 0)
    await eventually(async () => (await selectDeadLetters(server.sql, sinkName, 0, 10)).length === 2)
    answer = () => 'delivered'
    expect(await server.sql.begin((tx) => reviveDeadLetters(tx, sinkName, [position]))).toBe(1)
    await eventually(() => numbersOf(one).length === 1)
    expect(await selectDeadLetters(server.sql, sinkName, 0, 10)).toMatchObject([{ resource_id: other }])
  })

  test('is none any more once a replay from before it brought it', async () => {
    const id = newId()
    answer = () => ({ ...refused, isFinal: true })
    await start()
    const position = await change(id, 0)
    await eventually(async () => (await selectDeadLetters(server.sql, sinkName, 0, 10)).length === 1)
    answer = () => 'delivered'
    await server.sql.begin((tx) => rewindSink(tx, sinkName, position - 1))
    await eventually(() => arrived.length === 1)
    expect(await selectDeadLetters(server.sql, sinkName, 0, 10)).toEqual([])
  })
})
