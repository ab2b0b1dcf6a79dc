import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type CountedService, countUp, registerCounted } from '../../test/support/changing-services.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { newId } from '../ids.ts'
import { selectBounds } from './change-log.ts'
import { trimChanges } from './trim-changes.ts'

let server: PostgresServer
let service: CountedService
const day = 86_400_000

beforeAll(async () => {
  server = await startPostgresServer()
})
afterAll(() => server?.stop())
beforeEach(async () => {
  await server.sql`delete from event_sinks`
  await server.sql`delete from changes`
  service = { id: newId(), name: newId() }
  await registerCounted(server.sql, service)
})

async function positions(): Promise<number[]> {
  const rows = await server.sql<{ position: number }[]>`select position from changes order by position`
  return rows.map(({ position }) => position)
}

async function threeChanges(): Promise<[number, number, number]> {
  return [await countUp(server.sql, service), await countUp(server.sql, service), await countUp(server.sql, service)]
}

test('old changes go, and the horizon says so', async () => {
  const [, , last] = await threeChanges()
  expect(await trimChanges(server.sql, Date.now() - day)).toBe(0)
  expect(await positions()).toHaveLength(4)
  expect(await trimChanges(server.sql, Date.now() + day)).toBe(4)
  expect(await positions()).toEqual([])
  expect(await selectBounds(server.sql)).toMatchObject({ horizon: last })
})

test('a younger change keeps those after it', async () => {
  const [first, second, third] = await threeChanges()
  await server.sql`update changes set created_at = now() - interval '2 days' where position <> ${second}`
  await trimChanges(server.sql, Date.now() - day)
  expect(await positions()).toEqual([second, third])
  expect(await selectBounds(server.sql)).toMatchObject({ horizon: first })
})

test('what a sink was not told of stays, and what waits or is a dead letter, until nobody asks for it any more', async () => {
  const [first, second, third] = await threeChanges()
  await server.sql`insert into event_sinks (name, position, seen_at) values ('a', ${second}, now())`
  await server.sql`
    insert into event_deliveries (sink, position, resource_kind, resource_id, attempts, next_attempt_at, last_error, dead_at)
    values ('a', ${first}, 'service', ${service.id}, 1, now(), '', now())`
  await server.sql`update changes set created_at = now() - interval '2 days'`
  await trimChanges(server.sql, Date.now() - day)
  expect(await positions()).toEqual([first, third])
  expect(await selectBounds(server.sql)).toMatchObject({ horizon: second })
  await server.sql`update event_deliveries set dead_at = now() - interval '2 days'`
  await trimChanges(server.sql, Date.now() - day)
  expect(await positions()).toEqual([third])
  await server.sql`update event_sinks set seen_at = now() - interval '2 days'`
  await trimChanges(server.sql, Date.now() - day)
  expect(await positions()).toEqual([])
})
