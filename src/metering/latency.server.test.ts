import { copyFile, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { migrate } from '../storage/migrate.ts'
import { latencyBucket, latencyCounts } from './latency.ts'

const timeout = 60_000

test('histograms move into the rollup, also those of hours whose records were dropped', { timeout }, async () => {
  const server = await startPostgresServer({ migrated: false })
  onTestFinished(() => server.stop())
  const before = await mkdtemp(join(tmpdir(), 'tollgate-before-'))
  onTestFinished(() => rm(before, { recursive: true }))
  const all = new URL('../storage/migrations/', import.meta.url)
  const names = (await readdir(all)).filter((name) => name < '0009')
  for (const name of names) await copyFile(new URL(name, all), join(before, name))
  await migrate(server.sql, { log: silentLog, directory: pathToFileURL(`${before}/`) })
  await server.sql.unsafe(`
    update usage_retention set dropped_before = '2026-02-01Z';
    insert into usage_hourly (hour, organization_id, consumer_id, service_id, key_id, model, status, currency, requests,
      input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens, reasoning_output_tokens, cost_nanos,
      duration_ms)
    select hour::timestamptz, 'o', 'c', 's', key, 'm', status, 'USD', 1, 0, 0, 0, 0, 0, 0, 0
    from (values ('2026-01-31 23:00Z'), ('2026-02-01 00:00Z')) as hours (hour), (values ('k1'), ('k2')) as keys (key),
      (values ('failed'), ('succeeded')) as statuses (status);
    create table usage_records_2026_02 partition of usage_records for values from ('2026-02-01Z') to ('2026-03-01Z');
    insert into usage_records
    select gen_random_uuid(), gen_random_uuid(), 'o', 'c', 's', 'e', 'k2', '2026-02-01 00:10Z', ms, 'succeeded', '',
      0, 0, 0, 0, 0, 'provider', 0, 'USD', '', 'm', 1, '{}'
    from unnest(array[0, 1000, 1000]) as ms;
    insert into usage_hourly_latency values ('2026-01-31 23:00Z', 'c', 's', 'failed', 4, 3),
      ('2026-01-31 23:00Z', 'c', 's', 'failed', -1, 1), ('2026-02-01 00:00Z', 'c', 's', 'succeeded', 70, 2)`)
  await migrate(server.sql, { log: silentLog })
  const rows = await server.sql<{ row: string; latencies: string }[]>`
    select to_char(hour, 'DD') || key_id || status as row, latencies::text as latencies from usage_hourly
    where latencies <> 0 order by row`
  const found = rows.map(({ row, latencies }) => ({ row, counts: latencyCounts(latencies) }))
  const dropped = [
    { bucket: -1, requests: 1 },
    { bucket: 4, requests: 3 },
  ]
  const kept = [
    { bucket: -1, requests: 1 },
    { bucket: latencyBucket(1_000), requests: 2 },
  ]
  expect(found).toEqual([
    { row: '01k2succeeded', counts: kept },
    { row: '31k1failed', counts: dropped },
  ])
})
