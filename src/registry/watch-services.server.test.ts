import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  WatchResponse_Kind as Kind,
  WatchRequestSchema,
  type WatchResponseSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { type CountedService, countUp, registerCounted } from '../../test/support/changing-services.ts'
import { eventually } from '../../test/support/eventually.ts'
import { administrator, keyOf, testCall } from '../../test/support/invoke.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { type ChangeFeed, createChangeFeed } from '../control/change-feed.ts'
import { trimChanges } from '../control/trim-changes.ts'
import type { Principal } from '../identity/principal.ts'
import { newId } from '../ids.ts'
import { createSnapshots, type Snapshots } from './snapshots.ts'
import { createServiceWatch, type ServiceWatch, type ServiceWatchOptions } from './watch-services.ts'

type Event = MessageInitShape<typeof WatchResponseSchema>

let server: PostgresServer
let feed: ChangeFeed
let snapshots: Snapshots
const stops: AbortController[] = []

/** As app.ts puts them together; `capacity` is the feed's. */
async function follow(capacity = 1_024): Promise<void> {
  feed = createChangeFeed({ sql: server.sql, log: silentLog, kind: 'service', capacity, retryMs: 50 })
  const { advance } = feed
  snapshots = createSnapshots({
    sql: server.sql,
    log: silentLog,
    pollMs: 50,
    onChange: ({ version }) => advance(version),
  })
  await snapshots.start()
}

async function unfollow(): Promise<void> {
  await snapshots.close()
  await feed.close()
}

beforeAll(async () => {
  server = await startPostgresServer({ owned: true })
  await follow()
})
afterAll(async () => {
  await unfollow()
  await server?.stop()
})
afterEach(() => {
  for (const stop of stops.splice(0)) stop.abort(new Error('the test is over'))
})

function watchOf(options: Partial<ServiceWatchOptions> = {}): ServiceWatch {
  return createServiceWatch({ sql: server.sql, snapshots, feed, maxAgeMs: 3_600_000, ...options })
}

function open(
  watch: ServiceWatch,
  request: MessageInitShape<typeof WatchRequestSchema> = {},
  principal: Principal = administrator,
): AsyncIterator<Event, unknown> {
  const stop = new AbortController()
  stops.push(stop)
  const call = testCall(principal, { signal: stop.signal })
  return watch(create(WatchRequestSchema, request), call)[Symbol.asyncIterator]()
}

async function take(events: AsyncIterator<Event, unknown>, count: number): Promise<Event[]> {
  const taken: Event[] = []
  while (taken.length < count) {
    const next = await events.next()
    if (next.done === true) throw new Error(`it ended after ${taken.length} events`)
    taken.push(next.value)
  }
  return taken
}

let names = 0
async function aService(): Promise<CountedService & { position: number }> {
  names += 1
  const service = { id: newId(), name: `watched-${names}` }
  return { ...service, position: await registerCounted(server.sql, service) }
}

describe('a watch', () => {
  test('shows URLs and credential references to those only who may change the service', async () => {
    const { id } = await aService()
    const stranger = keyOf({ id: newId(), organizationId: newId() })
    await server.sql`
      insert into endpoints (id, service_id, position, url, protocol, credential_ref)
      values (${newId()}, ${id}, 0, 'https://a.example', 'openai', 'env:TOKEN')`
    for (const [principal, shown] of [
      [administrator, { url: 'https://a.example', credentialRef: 'env:TOKEN' }],
      [stranger, { url: '', credentialRef: '' }],
    ] as const) {
      const [event] = await take(open(watchOf(), { services: [id] }, principal), 1)
      expect(event?.service).toMatchObject({ id, endpoints: [shown] })
    }
  })

  test('begins with every service, says when that is all, and goes on with what changes', async () => {
    const first = await aService()
    const request = { services: [first.name, 'watched-none'] }
    const events = open(watchOf(), request)
    const [added, complete] = await take(events, 2)
    expect(added).toMatchObject({ kind: Kind.ADDED, service: { id: first.id, description: '0' } })
    expect(added?.resourceVersion).toBeUndefined()
    expect(complete).toMatchObject({ kind: Kind.BOOKMARK, snapshotComplete: true })
    expect(complete?.resourceVersion).toBeGreaterThanOrEqual(BigInt(first.position))
    const position = await countUp(server.sql, first)
    expect(await take(events, 1)).toMatchObject([
      {
        kind: Kind.MODIFIED,
        resourceVersion: BigInt(position),
        change: 'service.updated',
        service: { id: first.id, description: '1' },
      },
    ])
  })

  test('goes on from a version with what came after it, also from before this process began', async () => {
    const service = await aService()
    const positions: bigint[] = []
    for (let i = 0; i < 650; i += 1) positions.push(BigInt(await countUp(server.sql, service)))
    await unfollow()
    await follow()
    const events = open(watchOf(), { resourceVersion: positions[99] ?? 0n })
    const taken = await take(events, 550)
    expect(taken.map(({ resourceVersion }) => resourceVersion)).toEqual(positions.slice(100))
    const next = await countUp(server.sql, service)
    expect(await take(events, 1)).toMatchObject([{ resourceVersion: BigInt(next) }])
  })

  test('misses nothing that comes while it hands on what came before', async () => {
    const service = await aService()
    await eventually(() => feed.position() >= service.position)
    const events = open(watchOf(), { resourceVersion: BigInt(service.position) })
    const first = take(events, 1)
    const positions = [await countUp(server.sql, service)]
    await first
    // It stands behind the first event now; what it reads next is not what it has in hand.
    for (let i = 0; i < 5; i += 1) {
      positions.push(await countUp(server.sql, service))
      const latest = positions.at(-1) ?? 0
      await eventually(() => feed.position() >= latest)
    }
    const rest = await take(events, 5)
    expect(rest.map(({ resourceVersion }) => Number(resourceVersion))).toEqual(positions.slice(1))
  })

  test('hears of a service that is registered as added', async () => {
    const events = open(watchOf(), { resourceVersion: BigInt(feed.position()) })
    const taken = take(events, 1)
    const { id } = await aService()
    expect(await taken).toMatchObject([{ kind: Kind.ADDED, change: 'service.registered', service: { id } }])
  })

  test('goes on when Postgres was away', async () => {
    const service = await aService()
    const events = open(watchOf(), { resourceVersion: BigInt(service.position) })
    await countUp(server.sql, service)
    const before = await take(events, 1)
    const after = take(events, 1)
    await server.kill9()
    await server.restart()
    await eventually(() => countUp(server.sql, service))
    expect([...before, ...(await after)].map((event) => event.service?.description)).toEqual(['1', '2'])
  })

  test('does not call a version unknown that it cannot look for because Postgres is away', async () => {
    const { position } = await aService()
    const fromBeyond = open(watchOf(), { resourceVersion: BigInt(position + 1) })
    await server.kill9()
    await expect(fromBeyond.next()).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
    await server.restart()
    await eventually(() => snapshots.staleSinceMs() === undefined)
  })

  test('ends without an error when it is old, with a bookmark to go on from', async () => {
    let nowMs = Date.now()
    const service = await aService()
    const watch = watchOf({ now: () => nowMs, maxAgeMs: 60_000 })
    const events = open(watch, { resourceVersion: BigInt(service.position) })
    const position = await countUp(server.sql, service)
    await take(events, 1)
    nowMs += 60_000
    expect(await events.next()).toMatchObject({ value: { kind: Kind.BOOKMARK } })
    expect(await events.next()).toMatchObject({ done: true })
    expect(feed.position()).toBeGreaterThanOrEqual(position)
  })
})

describe('refused', () => {
  test('a version from before what is kept', async () => {
    const service = await aService()
    const changed = await countUp(server.sql, service)
    expect(await trimChanges(server.sql, Date.now() + 60_000)).toBeGreaterThan(0)
    await unfollow()
    await follow()
    await expect(open(watchOf(), { resourceVersion: BigInt(service.position) }).next()).rejects.toMatchObject({
      reason: 'RESOURCE_VERSION_TOO_OLD',
      metadata: { oldestVersion: String(changed) },
    })
    const next = await countUp(server.sql, service)
    expect(await take(open(watchOf(), { resourceVersion: BigInt(changed) }), 1)).toMatchObject([
      { resourceVersion: BigInt(next) },
    ])
  })

  test('a version that nobody gave', async () => {
    await expect(open(watchOf(), { resourceVersion: 1_000_000_000n }).next()).rejects.toMatchObject({
      reason: 'RESOURCE_VERSION_UNKNOWN',
    })
  })

  test('a watcher that reads slower than changes come; it can go on from its last event', async () => {
    const service = await aService()
    await unfollow()
    await follow(10)
    const watch = watchOf()
    const events = open(watch, { resourceVersion: BigInt(feed.position()) })
    const waiting = take(events, 1)
    const first = await countUp(server.sql, service)
    await waiting
    const positions: bigint[] = []
    for (let i = 0; i < 30; i += 1) positions.push(BigInt(await countUp(server.sql, service)))
    await eventually(() => feed.position() >= Number(positions.at(-1)))
    await expect(events.next()).rejects.toMatchObject({
      reason: 'WATCH_TOO_SLOW',
      metadata: { resourceVersion: String(first) },
    })
    const resumed = await take(open(watch, { resourceVersion: BigInt(first) }), 30)
    expect(resumed.map(({ resourceVersion }) => resourceVersion)).toEqual(positions)
  })

  test('a watcher beyond the ceiling, until another one leaves', async () => {
    const service = await aService()
    const watch = watchOf({ watchersMax: 2 })
    const two = [open(watch), open(watch)]
    for (const events of two) await events.next()
    await expect(open(watch).next()).rejects.toMatchObject({ reason: 'WATCHERS_EXHAUSTED' })
    await two[0]?.return?.()
    expect(await take(open(watch, { services: [service.id] }), 1)).toMatchObject([{ service: { id: service.id } }])
  })
})
