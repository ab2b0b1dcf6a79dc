import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EventService } from '../gen/marketplace/v1/events_pb.ts'
import { newId } from '../src/ids.ts'
import type { DomainEvent } from '../src/outbox/domain-event.ts'
import { type CountedService, countUp, registerCounted } from './support/changing-services.ts'
import { eventually } from './support/eventually.ts'
import { type KafkaServer, startKafkaServer } from './support/kafka-server.ts'
import { readTopic } from './support/kafka-topic.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { refusal } from './support/refusal.ts'
import { scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'
import { startWebhookReceiver, type WebhookReceiver } from './support/webhook-receiver.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const topic = `changes-${newId()}`
let postgres: PostgresServer
let kafka: KafkaServer
let receiver: WebhookReceiver
let folder: string
let gates: Tollgate[]

const start = (): Promise<Tollgate> =>
  startTollgate({
    command: 'serve',
    env: {
      DATABASE_URL: postgres.url,
      TOLLGATE_ADMIN_KEY: adminKey,
      KAFKA_BROKERS: kafka.brokers,
      EVENTS_KAFKA_TOPIC: topic,
      EVENTS_WEBHOOK_URL: receiver.url,
      EVENTS_WEBHOOK_SECRET: receiver.secret,
      EVENTS_FILE: join(folder, 'events.jsonl'),
    },
  })

beforeAll(async () => {
  postgres = await startPostgresServer({ owned: true })
  kafka = await startKafkaServer()
  receiver = await startWebhookReceiver()
  folder = await scratchDir()
  gates = [await start(), await start()]
  await eventually(async () => (await sinks()).length === 3)
}, 300_000)

afterAll(async () => {
  await Promise.all(gates?.map((gate) => gate.stop()) ?? [])
  await receiver?.close()
  await kafka?.stop()
  await postgres?.stop()
})

async function sinks() {
  const gate = gates[0] as Tollgate
  return (await gate.client(EventService, adminKey).listEventSinks({})).eventSinks
}

async function inFile(): Promise<DomainEvent[]> {
  const lines = (await readFile(join(folder, 'events.jsonl'), 'utf8')).trimEnd().split('\n')
  // A line that a killed process did not finish stands before the same event as a whole.
  return lines.flatMap((line) => (line.endsWith('}') ? [JSON.parse(line)] : []))
}

/** The first deliveries of a service's events, as the counts that they tell, in their order. */
function firstCounts(events: readonly DomainEvent[], id: string): number[] {
  const own = events.filter(({ subject }) => subject === `service/${id}`)
  const seen = new Set<string>()
  const firsts = own.filter((event) => !seen.has(event.id) && seen.add(event.id))
  return firsts.map(({ data }) => Number(Reflect.get(Object(data.resource), 'description')))
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** Registers services and changes each `times` times, by four writers; begins anew whatever Postgres does not take. */
async function write(services: readonly CountedService[], times: number): Promise<void> {
  for (const service of services) await eventually(() => registerCounted(postgres.sql, service))
  const writer = async (first: number): Promise<void> => {
    for (let round = 0; round < times; round += 1) {
      for (let i = first; i < services.length; i += 4) {
        const service = services[i] as CountedService
        // Whether a change whose answer was lost is there, the count says.
        await eventually(async () => {
          const [row] = await postgres.sql<{ description: string }[]>`
            select description from services where id = ${service.id}`
          return Number(row?.description) > round ? true : (await countUp(postgres.sql, service)) > 0
        })
      }
    }
  }
  await Promise.all(upTo(4).map(writer))
}

describe('under kills', () => {
  test('every change arrives at every sink, at least once, those of a resource first in order', async () => {
    const services = upTo(8).map((i) => ({ id: newId(), name: `told-${i}` }))
    let requests = 0
    receiver.setMood(() => {
      requests += 1
      if (requests % 97 === 0) return 'hang'
      if (requests % 23 === 0) return 'cut'
      if (requests % 31 === 0) return 429
      return requests % 7 === 0 ? 500 : 200
    })
    const writing = write(services, 40)
    const faults = async (): Promise<void> => {
      for (let i = 0; i < 3; i += 1) {
        const before = receiver.taken.length
        await eventually(() => receiver.taken.length > before + 15, { timeoutMs: 60_000 })
        // Whoever delivers to the webhook; at whatever it does at the moment.
        const victim = await eventually(async () => {
          const holder = (await sinks()).find(({ name }) => name === 'webhook')?.holder ?? ''
          const index = gates.findIndex(({ pid }) => holder.includes(`-${pid}-`))
          return index >= 0 && { index }
        })
        await gates[victim.index]?.kill9()
        if (i === 0) await kafka.kill9()
        if (i === 1) await postgres.kill9()
        if (i === 1) await postgres.restart()
        gates[victim.index] = await start()
        if (i === 0) await kafka.restart()
      }
    }
    await faults()
    await writing
    receiver.setMood(() => 200)
    const all = upTo(41)
    const isWhole = (events: readonly DomainEvent[]): boolean =>
      services.every(
        ({ id }) => new Set(events.flatMap((e) => (e.subject === `service/${id}` ? [e.id] : []))).size === 41,
      )
    await eventually(() => isWhole(receiver.taken), { timeoutMs: 120_000 })
    await eventually(async () => isWhole(await inFile()), { timeoutMs: 60_000 })
    const messages = await readTopic(kafka.brokers, topic, (read) =>
      isWhole(read.map(({ value }) => JSON.parse(value))),
    )
    const inKafka = messages.map(({ value }): DomainEvent => JSON.parse(value))
    const filed = await inFile()
    for (const { id } of services) {
      expect(firstCounts(receiver.taken, id)).toEqual(all)
      expect(firstCounts(filed, id)).toEqual(all)
      expect(firstCounts(inKafka, id)).toEqual(all)
      expect(new Set(messages.flatMap(({ key, partition }) => (key === `service/${id}` ? [partition] : []))).size).toBe(
        1,
      )
    }
    expect(receiver.forged()).toBe(0)
    await eventually(async () =>
      (await sinks()).every(({ behindCount, waitingCount }) => behindCount === 0n && waitingCount === 0n),
    )
  }, 400_000)
})

describe('an administrator', () => {
  test('sees what was refused, and sends it again', async () => {
    const service = { id: newId(), name: 'refused-once' }
    const isOurs = ({ subject }: DomainEvent): boolean => subject === `service/${service.id}`
    receiver.setMood((event) => (isOurs(event) && event.type.endsWith('registered') ? 422 : 200))
    await registerCounted(postgres.sql, service)
    await countUp(postgres.sql, service)
    await eventually(() => receiver.taken.some(isOurs))
    const events = (gates[0] as Tollgate).client(EventService, adminKey)
    const { deadLetters } = await eventually(async () => {
      const page = await events.listDeadLetters({ sink: 'webhook' })
      return page.deadLetters.length === 1 ? page : undefined
    })
    const subject = `service/${service.id}`
    expect(deadLetters).toMatchObject([
      { subject, type: 'tollgate.service.registered', attempts: 1, failure: 'HTTP 422' },
    ])
    const health = await (await fetch(`${gates[0]?.address}/health/detailed`)).json()
    expect(health).toMatchObject({
      components: { domain_events: { status: 'degraded', detail: expect.stringContaining('1 dead letters') } },
    })
    const metrics = await (await fetch(`${gates[0]?.address}/metrics`)).text()
    expect(metrics).toMatch(/tollgate_domain_events_dead_letters\{sink="webhook"\} 1/)

    receiver.setMood(() => 200)
    const what = { case: 'deadLetters', value: {} } as const
    expect(await events.replayEvents({ sink: 'webhook', what })).toMatchObject({ eventCount: 1n })
    await eventually(() => receiver.taken.filter(isOurs).length === 2)
    expect((await events.listDeadLetters({ sink: 'webhook' })).deadLetters).toEqual([])
    const audit = await postgres.sql`select actor, resource from audit_records where action = 'event_sink.replayed'`
    expect(audit).toEqual([{ actor: 'administrator', resource: 'event_sink/webhook' }])
  })

  test('lets a sink begin again after a position, without another sink noticing', async () => {
    const service = { id: newId(), name: 'told-again' }
    const before = await registerCounted(postgres.sql, service)
    for (let i = 0; i < 5; i += 1) await countUp(postgres.sql, service)
    const ours = (all: readonly DomainEvent[]): DomainEvent[] =>
      all.filter(({ subject }) => subject === `service/${service.id}`)
    await eventually(async () => ours(receiver.taken).length === 6 && ours(await inFile()).length === 6)
    const events = (gates[0] as Tollgate).client(EventService, adminKey)
    const what = { case: 'afterPosition', value: BigInt(before) } as const
    expect((await events.replayEvents({ sink: 'file', what })).eventCount).toBe(5n)
    await eventually(async () => ours(await inFile()).length === 11)
    expect(
      ours(await inFile())
        .slice(6)
        .map(({ id }) => id),
    ).toEqual(
      ours(receiver.taken)
        .slice(1)
        .map(({ id }) => id),
    )
    expect(ours(receiver.taken)).toHaveLength(6)
  })

  test.each([
    ['a sink that is not there', 'pager', 1_000n, 'EVENT_SINK_NOT_FOUND', Code.NotFound],
    ['a position that is trimmed', 'file', 0n, 'RESOURCE_VERSION_TOO_OLD', Code.OutOfRange],
    ['a position that was not reached', 'file', 1_000_000_000n, 'RESOURCE_VERSION_UNKNOWN', Code.OutOfRange],
  ])('is refused %s', async (_, sink, value, reason, code) => {
    const events = (gates[0] as Tollgate).client(EventService, adminKey)
    const replay = events.replayEvents({ sink, what: { case: 'afterPosition', value } })
    expect(await refusal(replay)).toMatchObject({ reason, code })
  })
})
