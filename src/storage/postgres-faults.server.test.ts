import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type CutProxy, startCutProxy } from '../../test/support/cut-proxy.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { connectPostgres, isTransient, type Sql } from './postgres.ts'

const timeout = 60_000
let server: PostgresServer
let proxy: CutProxy
let url: string
let sql: Sql

beforeAll(async () => {
  server = await startPostgresServer({ migrated: false })
}, timeout)

afterAll(() => server?.stop(), timeout)

beforeEach(async () => {
  const { target } = server
  const upstream = 'url' in target ? new URL(target.url) : undefined
  proxy = await startCutProxy({
    upstream: () =>
      'socketPath' in target
        ? { path: target.socketPath }
        : { host: upstream?.hostname ?? '', port: Number(upstream?.port || 5432) },
  })
  const user = 'url' in target ? `${upstream?.username}:${upstream?.password}` : target.user
  const database = 'url' in target ? upstream?.pathname.slice(1) : target.database
  url = `postgres://${user}@127.0.0.1:${proxy.port}/${database}`
  sql = connectPostgres({ url, log: silentLog, maxConnections: 2, connectTimeoutMs: 2_000 })
})

afterEach(async () => {
  await sql.end(100)
  await proxy.close()
})

/** Everything that can run serves, with both connections. */
async function expectService(): Promise<void> {
  await expect.poll(() => sql`select 1 as one`.then(([row]) => row?.one), { timeout: 10_000 }).toBe(1)
  const both = [1, 2].map(() => sql.begin(async (tx) => (await tx`select pg_sleep(0.01), 2 as two`)[0]?.two))
  expect(await Promise.all(both)).toEqual([2, 2])
}

async function transientFailure(work: PromiseLike<unknown>): Promise<void> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(isTransient(error), String(error)).toBe(true)
}

describe('a connection that is cut fails what runs on it, and nothing else', () => {
  test('in a statement', { timeout }, async () => {
    const running = sql`select pg_sleep(30)`.then()
    running.catch(() => {})
    await delay(50)
    proxy.cut()
    await transientFailure(running)
    await expectService()
  })

  test('between two statements of a transaction, which goes on', { timeout }, async () => {
    const statement = sql.begin(async (tx) => {
      await tx`select 1`
      proxy.cut()
      await delay(20)
      await tx`select 2`
    })
    await transientFailure(statement)
    await expectService()
  })

  test('in a transaction that catches the failure', { timeout }, async () => {
    const statement = sql.begin(async (tx) => {
      proxy.cut()
      await tx`select 1`.catch(() => {})
      await tx`select 2`.catch(() => {})
    })
    await transientFailure(statement)
    await expectService()
  })

  test('while a connection is held and idle', { timeout }, async () => {
    const held = sql.onConnection(async (connection) => {
      await connection`select 1`
      proxy.cut()
      await delay(20)
      for (let i = 0; i < 3; i++) await transientFailure(connection`select 1`)
      return 'went on'
    })
    expect(await held).toBe('went on')
    await expectService()
  })

  test('again and again, at any moment', { timeout }, async () => {
    let isOver = false
    const cutting = (async () => {
      for (let i = 0; i < 200; i++) {
        proxy.cut()
        await delay(i % 5)
      }
      isOver = true
    })()
    const payload = 'x'.repeat(2_000)
    const callers = Array.from({ length: 8 }, async (_, caller) => {
      while (!isOver) {
        const work =
          caller % 2 === 0
            ? sql`select ${payload}::text as payload`
            : sql.begin(async (tx) => {
                await tx`select ${caller}::int8`
                await tx`select ${payload}::text`
              })
        await work.then(undefined, (error: unknown) => expect(isTransient(error), String(error)).toBe(true))
      }
    })
    await Promise.all([cutting, ...callers])
    await expectService()
  })

  test('in the handshake', { timeout }, async () => {
    proxy.refuse()
    await transientFailure(sql`select 1`)
    proxy.stall()
    await transientFailure(sql`select 1`)
    proxy.heal()
    await expectService()
  })
})

test('a server that leaves in the moment in which a connection is ready fails the statement only', {
  timeout,
}, async () => {
  // AuthenticationOk, ReadyForQuery and the FATAL of a server that shuts down, in one packet.
  const fatal = Buffer.from('SFATAL\0C57P01\0Mterminating connection\0\0')
  const answer = Buffer.concat([
    Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49, 0x45, 0, 0, 0, fatal.length + 4]),
    fatal,
  ])
  const leaving = createServer((socket) => socket.on('error', () => {}).once('data', () => socket.end(answer)))
  await new Promise<void>((resolve) => leaving.listen(0, '127.0.0.1', resolve))
  const address = leaving.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const pool = connectPostgres({ url: `postgres://u@127.0.0.1:${port}/d`, log: silentLog })
  for (let i = 0; i < 3; i++) await transientFailure(pool`select 1`)
  await pool.end()
  await new Promise((resolve) => leaving.close(resolve))
})

test('a statement never runs in the transaction of somebody else', { timeout }, async () => {
  await server.sql`create table written (text text)`
  const first = sql.begin(async (tx) => {
    await tx`select 1`
    proxy.cut()
    await delay(50)
    await tx`insert into written values ('lost')`
  })
  first.catch(() => {})
  const others = Array.from({ length: 20 }, (_, i) =>
    expect
      .poll(() => sql.begin(async (tx) => (await tx`insert into written values (${`kept ${i}`})`).count), {
        timeout: 10_000,
      })
      .toBe(1),
  )
  await Promise.all([expect(first).rejects.toThrow(), ...others])
  const rows = await server.sql<{ text: string }[]>`select text from written where text = 'lost'`
  expect(rows).toEqual([])
})

test('listening goes on after an outage, and says that something may have been missed', { timeout }, async () => {
  let told = 0
  const subscription = sql.listen('news', () => told++)
  await expect.poll(() => told).toBe(1)
  await server.sql`notify news`
  await expect.poll(() => told).toBe(2)
  proxy.refuse()
  proxy.cut()
  await delay(20)
  proxy.heal()
  await expect.poll(() => told, { timeout: 10_000 }).toBe(3)
  await server.sql`notify news`
  await expect.poll(() => told).toBe(4)
  await subscription.close()
})

test('ending does not wait for a server that does not answer', { timeout }, async () => {
  const running = sql`select 1`.then()
  await running
  proxy.stall()
  const stuck = sql`select pg_sleep(60)`.then()
  await delay(20)
  await Promise.all([transientFailure(stuck), sql.end(100)])
})

describe('a server that is connected and says nothing', () => {
  test('fails a statement, and the pool gets its place for a connection back', { timeout }, async () => {
    const pool = connectPostgres({ url, log: silentLog, maxConnections: 1, statementTimeoutMs: 50 })
    await pool`select 1`
    proxy.stall()
    await transientFailure(pool`select 1`)
    proxy.heal()
    expect(await pool.begin((tx) => tx`select 2 as two`.then())).toEqual([{ two: 2 }])
    await pool.end()
  })

  test('is not one that works on a statement that may take longer', { timeout }, async () => {
    const pool = connectPostgres({ url, log: silentLog, maxConnections: 1, statementTimeoutMs: 50 })
    const work = pool.begin(async (tx) => (await tx`select pg_sleep(5.5), 1 as one`)[0]?.one, '', 30_000)
    expect(await work).toBe(1)
    await transientFailure(pool`select pg_sleep(30)`)
    await pool.end()
  })

  test('is not heard any more, and listening goes on elsewhere', { timeout }, async () => {
    const warnings: object[] = []
    const log = { ...silentLog, warn: (fields: object) => void warnings.push(fields) }
    const pool = connectPostgres({ url, log, connectTimeoutMs: 500, listenCheckMs: 20 })
    let told = 0
    const subscription = pool.listen('news', () => told++)
    await expect.poll(() => told).toBe(1)
    proxy.stall()
    await expect.poll(() => warnings, { timeout: 20_000 }).toHaveLength(1)
    proxy.heal()
    await expect.poll(() => told, { timeout: 10_000 }).toBe(2)
    await server.sql`notify news`
    await expect.poll(() => told).toBe(3)
    await subscription.close()
    await pool.end()
  })

  test('holds up nobody who stops listening', { timeout }, async () => {
    let told = 0
    const subscription = sql.listen('news', () => told++)
    await expect.poll(() => told).toBe(1)
    proxy.stall()
    await subscription.close()
  })
})

test('ending does not wait for work that holds a connection', { timeout }, async () => {
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  const { promise: holding, resolve: onHolding } = Promise.withResolvers<void>()
  const work = sql.onConnection(async (connection) => {
    await connection`select 1`
    onHolding()
    await held
  })
  await holding
  await sql.end(50)
  release()
  await work
})

test('ending a pool ends listening too', { timeout }, async () => {
  let told = 0
  sql.listen('news', () => told++)
  await expect.poll(() => told).toBe(1)
  await sql.end(100)
  await expect.poll(() => proxy.connections()).toBe(0)
})

test('rows arrive as the types say', { timeout }, async () => {
  const sent = { texts: ['a"b', 'c\\d', '', 'NULL', null], bigints: [1, -(2 ** 53) + 1], integers: [7], uuids: [] }
  const [came] = await sql`
    select ${sent.texts}::text[] as texts, ${sent.bigints}::int8[] as bigints, ${sent.integers}::int4[] as integers,
      ${sent.uuids}::uuid[] as uuids`
  expect(came).toEqual(sent)
  const [row] = await sql`
    select ${sql.json([{ a: 1 }])}::jsonb as list, ${{ a: [1] }}::jsonb as record, '2026-02-03'::date as day,
      ${new Date(5)}::timestamptz as instant, true as truth, sum(1::int8)::int8 as sum, current_setting('TimeZone') as zone`
  expect(row).toEqual({
    list: [{ a: 1 }],
    record: { a: [1] },
    day: '2026-02-03',
    instant: new Date(5),
    truth: true,
    sum: 1,
    zone: 'UTC',
  })
  await expect(sql`select 9007199254740992::int8`).rejects.toThrow('beyond the safe integers')
  await expect(sql`select array[9007199254740992::int8]`).rejects.toThrow('beyond the safe integers')
})

test('a transaction whose statement failed is rolled back, also when its work does not tell', { timeout }, async () => {
  await server.sql`create table kept (n int8 primary key)`
  const work = sql.begin(async (tx) => {
    await tx`insert into kept values (1)`
    await tx`select 1 / 0`.catch(() => {})
  })
  await expect(work).rejects.toThrow('division by zero')
  expect(await sql`select from kept`).toHaveLength(0)
  expect((await sql`insert into kept ${sql([{ n: 1 }, { n: 2 }])}`).count).toBe(2)
})

test('a transaction fails with a statement that nobody awaited', { timeout }, async () => {
  await server.sql`create table unawaited (n int8)`
  const work = sql.begin(async (tx) => {
    await tx`insert into unawaited values (1)`
    tx`select 1 / 0`.catch(() => {})
  })
  await expect(work).rejects.toThrow('division by zero')
  expect(await sql`select from unawaited`).toHaveLength(0)
  expect(await sql.begin((tx) => tx`select 1 as one`.then())).toEqual([{ one: 1 }])
})
