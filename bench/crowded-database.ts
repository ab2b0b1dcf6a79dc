/**
 * Fills a gate's Postgres as years of use would, by copies of the rows that the benchmark's own services and calls left
 * there: whatever columns a table has, the copies have them too.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql, Transaction } from '../src/storage/postgres.ts'

/** Rows of one statement. */
const batch = 250_000
const statementTimeoutMs = 300_000
/** How long vacuums of the new rows are waited for. */
const restMs = 300_000

/** Fills up services (with endpoint and price), consumers and keys to `count` of each. */
export async function growControlPlane(sql: Sql, count: number): Promise<void> {
  await sql.begin(
    async (tx) => {
      await copyServices(tx, count)
      await tx`
        insert into consumers
        select copy.* from consumers own,
          generate_series((select count(*) from consumers) + 1, ${count}::int) as number,
          lateral jsonb_populate_record(own, jsonb_build_object('id', gen_random_uuid(), 'name', 'copy-' || number)) as copy
        where own.name = 'bench'`
      await tx`
        insert into api_keys
        select copy.* from api_keys own join consumers bench on bench.id = own.consumer_id and bench.name = 'bench',
          consumers other,
          lateral jsonb_populate_record(own, jsonb_build_object(
            'id', substr(md5(other.id::text), 1, length(own.id)), 'consumer_id', other.id)) as copy
        where not exists (select from api_keys known where known.consumer_id = other.id)`
    },
    undefined,
    statementTimeoutMs,
  )
}

async function copyServices(tx: Transaction, count: number): Promise<void> {
  await tx`
    insert into services
    select copy.* from services own,
      generate_series((select count(*) from services) + 1, ${count}::int) as number,
      lateral jsonb_populate_record(own, jsonb_build_object('id', gen_random_uuid(), 'name', 'copy-' || number)) as copy
    where own.name = 'bench'`
  await tx`
    insert into endpoints
    select copy.* from endpoints own join services bench on bench.id = own.service_id and bench.name = 'bench',
      services other,
      lateral jsonb_populate_record(own, jsonb_build_object('id', gen_random_uuid(), 'service_id', other.id)) as copy
    where not exists (select from endpoints known where known.service_id = other.id)`
  await tx`
    insert into prices overriding user value
    select copy.* from prices own join services bench on bench.id = own.service_id and bench.name = 'bench',
      services other,
      lateral jsonb_populate_record(own, jsonb_build_object('service_id', other.id)) as copy
    where not exists (select from prices known where known.service_id = other.id)`
}

/** Fills up the ledger to `count` records of the last twenty days, with ids of their times, their dedupe rows and hourly sums. */
export async function growLedger(sql: Sql, count: number): Promise<void> {
  const [{ present }] = await sql<[{ present: number }]>`select count(*)::int as present from usage_records`
  for (let left = count - present; left > 0; left -= batch) {
    const rows = Math.min(batch, left)
    await sql.begin((tx) => copyRecords(tx, rows), undefined, statementTimeoutMs)
    process.stderr.write(`${count - left + rows} usage records\n`)
  }
  await sql.begin(copyHours, undefined, statementTimeoutMs)
  await atRest(sql)
}

/** Resolves when Postgres has done what so many rows leave it to do, which is not what calls cost. */
async function atRest(sql: Sql): Promise<void> {
  await sql.begin(
    async (tx) => {
      await tx`checkpoint`
    },
    undefined,
    statementTimeoutMs,
  )
  const untilMs = Date.now() + restMs
  for (let quiet = 0; quiet < 5 && Date.now() < untilMs; quiet++) {
    await sleep(1_000)
    const [{ workers }] = await sql<[{ workers: number }]>`
      select count(*)::int as workers from pg_stat_activity where backend_type = 'autovacuum worker'`
    if (workers > 0) quiet = -1
  }
}

async function copyRecords(tx: Transaction, rows: number): Promise<void> {
  await tx`
    with others as (
      select array_agg(id::text) as ids from consumers where name <> 'bench'
    ), made as (
      insert into usage_records
      select copy.*
      from (select record from usage_records record limit 1) as own, others, generate_series(1, ${rows}::int) as number,
        lateral (select interval '-20 days' * (1 - number / ${rows}::float8) as shift) as past,
        lateral jsonb_populate_record(own.record, jsonb_build_object(
          'id', uuidv7(shift),
          'request_id', uuidv7(shift),
          'consumer_id', others.ids[1 + number % array_length(others.ids, 1)],
          'start_time', now() + shift)) as copy
      returning id
    )
    insert into usage_seen (event_id) select id from made order by id`
}

/** A day's hours of every consumer. */
async function copyHours(tx: Transaction): Promise<void> {
  await tx`
    insert into usage_hourly
    select copy.*
    from (select sums from usage_hourly sums limit 1) as own, consumers other, generate_series(1, 24) as ago,
      lateral jsonb_populate_record(own.sums, jsonb_build_object(
        'consumer_id', other.id, 'hour', date_trunc('hour', now()) - ago * interval '1 hour')) as copy
    where other.name <> 'bench'
    on conflict do nothing`
}
