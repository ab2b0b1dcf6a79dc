import { setTimeout as delay } from 'node:timers/promises'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  WatchResponse_Kind as Kind,
  Registry,
  ServiceStatus,
  type WatchResponse,
} from '../gen/marketplace/v1/registry_pb.ts'
import { newId } from '../src/ids.ts'
import { type CountedService, countUp, registerCounted } from './support/changing-services.ts'
import { eventually } from './support/eventually.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { refusal } from './support/refusal.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
let postgres: PostgresServer
let gates: Tollgate[]

const start = (): Promise<Tollgate> =>
  startTollgate({ command: 'serve', env: { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey } })

beforeAll(async () => {
  postgres = await startPostgresServer({ owned: true })
  gates = await Promise.all([start(), start()])
})

afterAll(async () => {
  await Promise.all(gates?.map((gate) => gate.stop()) ?? [])
  await postgres?.stop()
})

/** A watcher on a connection of its own, which is cut after `events` events; returns how its stream ended. */
async function watchUntilCut(
  gate: Tollgate,
  since: bigint,
  events: number,
  take: (event: WatchResponse) => void,
): Promise<unknown> {
  const sessions = new Http2SessionManager(gate.address)
  const client = createClient(Registry, createGrpcTransport({ baseUrl: gate.address, sessionManager: sessions }))
  const headers = { authorization: `Bearer ${adminKey}` }
  let left = events
  try {
    for await (const event of client.watch(
      { resourceVersion: since, bookmarkInterval: { seconds: 1n } },
      { headers },
    )) {
      take(event)
      left -= 1
      if (left === 0) sessions.abort(new Error('cut'))
    }
    return undefined
  } catch (error) {
    return error
  } finally {
    sessions.abort()
  }
}

test('a watch that is killed and resumed under 1 000 changes by four writers loses nothing, and no order', async () => {
  const services: CountedService[] = Array.from({ length: 10 }, (_, i) => ({ id: newId(), name: `counted-${i}` }))
  for (const service of services.slice(0, 5)) await registerCounted(postgres.sql, service)
  const perWriter = 250
  const writer = async (first: number): Promise<void> => {
    for (let i = 0; i < perWriter; i += 1) {
      const service = services[(first + 4 * i) % services.length]
      if (service !== undefined) await countUp(postgres.sql, service)
    }
  }
  let written = false
  const write = async (): Promise<void> => {
    // Half of the services come while the watch is on.
    await Promise.all(services.slice(5).map((service) => registerCounted(postgres.sql, service)))
    await Promise.all([0, 1, 2, 3].map(writer))
    written = true
  }

  const counts = new Map<string, number[]>()
  let since = 0n
  let deltas = 0
  let snapshots = 0
  const disorder: string[] = []
  function take({ kind, resourceVersion, service, snapshotComplete }: WatchResponse): void {
    // Within a snapshot there is no version; after it versions rise, and bookmarks do not go back.
    const isLate = kind === Kind.BOOKMARK ? resourceVersion < since : resourceVersion <= since
    if (snapshots > 0 && isLate) disorder.push(`${resourceVersion} after ${since}`)
    if (snapshotComplete) snapshots += 1
    if (resourceVersion > 0n) since = resourceVersion
    if (service === undefined) return
    if (resourceVersion > 0n) deltas += 1
    counts.set(service.id, [...(counts.get(service.id) ?? []), Number(service.description)])
  }

  const writing = write()
  const ends: unknown[] = []
  // A snapshot that is not complete is begun anew.
  while (snapshots === 0) {
    counts.clear()
    ends.push(await watchUntilCut(gates[0] as Tollgate, 0n, 12, take))
  }
  const isDone = async (): Promise<boolean> => {
    if (!written) return false
    const rows = await postgres.sql<{ id: string; description: string }[]>`select id, description from services`
    return rows.every(({ id, description }) => counts.get(id)?.at(-1) === Number(description))
  }
  for (let turn = 0; !(await isDone()); turn += 1) {
    const index = turn % gates.length
    // A gate dies, too, in the middle of somebody's watch.
    if (turn === 8) {
      const dying = gates[1] as Tollgate
      const watching = watchUntilCut(dying, since, 100_000, take)
      await delay(20)
      await dying.kill9()
      ends.push(await watching)
      gates[1] = await start()
      continue
    }
    ends.push(await watchUntilCut(gates[index] as Tollgate, since, 1 + Math.floor(Math.random() * 100), take))
  }
  await writing
  for (const service of services) {
    const seen = counts.get(service.id) ?? []
    // From what the snapshot said, one after the other.
    expect(seen).toEqual(Array.from(seen, (_, i) => (seen[0] ?? 0) + i))
    expect(seen.at(-1)).toBe(100)
  }
  expect(disorder).toEqual([])
  expect(ends.filter((end) => end !== undefined).length).toBeGreaterThan(10)
  expect(deltas).toBeGreaterThan(500)
}, 300_000)

test('a change reaches watchers of every replica, and bookmarks move on when others change', async () => {
  const service = { id: newId(), name: 'seen-everywhere' }
  const position = await registerCounted(postgres.sql, service)
  const stop = new AbortController()
  const seen = gates.map(() => [] as WatchResponse[])
  const watching = gates.map(async (gate, i) => {
    const request = { resourceVersion: BigInt(position), services: [service.name], bookmarkInterval: { seconds: 1n } }
    const stream = gate.client(Registry, adminKey).watch(request, { signal: stop.signal })
    for await (const event of stream) seen[i]?.push(event)
  })
  const changed = await countUp(postgres.sql, service)
  await eventually(() => seen.every((events) => events.some(({ kind }) => kind === Kind.MODIFIED)))
  const other = await registerCounted(postgres.sql, { id: newId(), name: 'not-asked-for' })
  await eventually(() =>
    seen.every((events) => events.some((e) => e.kind === Kind.BOOKMARK && e.resourceVersion >= BigInt(other))),
  )
  for (const events of seen) {
    const deltas = events.filter(({ kind }) => kind !== Kind.BOOKMARK)
    expect(deltas).toMatchObject([
      { kind: Kind.MODIFIED, resourceVersion: BigInt(changed), change: 'service.updated', service: { id: service.id } },
    ])
  }
  stop.abort()
  for (const one of watching) await expect(one).rejects.toMatchObject({ code: Code.Canceled })
})

test('what one gate is told to do with a service, watchers of another one see', async () => {
  const [one, other] = gates as [Tollgate, Tollgate]
  const name = 'administered'
  const stop = new AbortController()
  const seen: WatchResponse[] = []
  const watching = (async () => {
    const stream = other.client(Registry, adminKey).watch({ services: [name] }, { signal: stop.signal })
    for await (const event of stream) seen.push(event)
  })()
  await eventually(() => seen.some(({ snapshotComplete }) => snapshotComplete))
  const registry = one.client(Registry, adminKey)
  const endpoints = [{ url: 'http://127.0.0.1:9/v1' }]
  const { id } = await registry.registerService({ service: { name, version: '1.0.0', endpoints } })
  await registry.updateService({ service: { id, description: 'changed' }, updateMask: { paths: ['description'] } })
  await registry.retireService({ id, reason: 'over' })
  const deltas = await eventually(() => {
    const changes = seen.filter(({ change }) => change !== '')
    return changes.length === 3 && changes
  })
  expect(deltas).toMatchObject([
    { kind: Kind.ADDED, change: 'service.registered', service: { id, status: ServiceStatus.ACTIVE } },
    { kind: Kind.MODIFIED, change: 'service.updated', service: { id, description: 'changed' } },
    { kind: Kind.MODIFIED, change: 'service.retired', service: { id, status: ServiceStatus.RETIRED } },
  ])
  stop.abort()
  await expect(watching).rejects.toMatchObject({ code: Code.Canceled })
})

test('a version that nobody gave is refused', async () => {
  const watch = async (): Promise<void> => {
    const client = (gates[0] as Tollgate).client(Registry, adminKey)
    for await (const _ of client.watch({ resourceVersion: 1_000_000_000n })) return
  }
  expect(await refusal(watch())).toMatchObject({ code: Code.OutOfRange, reason: 'RESOURCE_VERSION_UNKNOWN' })
})

test('the end of the process is a clean UNAVAILABLE', async () => {
  const gate = gates[1] as Tollgate
  const seen: WatchResponse[] = []
  const watching = (async () => {
    for await (const event of gate.client(Registry, adminKey).watch({})) seen.push(event)
  })().catch((error: unknown) => ConnectError.from(error))
  await eventually(() => seen.some(({ snapshotComplete }) => snapshotComplete))
  const ended = gate.terminate()
  expect(await watching).toMatchObject({ code: Code.Unavailable, rawMessage: 'the server is shutting down' })
  expect(await ended).toBe(0)
})
