/**
 * `node bench/sink.ts [--quick] [--json FILE] [--consumers N] [--batch N] [--lanes N] [--url URL]`
 *
 * How many usage records a second the drain brings into the ledger, with dedupe, rollup and histogram, beside a raw COPY
 * of the same rows into a table without an index: same run, same Postgres, in turn. The usage log is a list of events
 * made beforehand; all else is the real drain. With 1, 20 and 200 consumers, because what a batch costs depends on how
 * many rows of the rollup it touches. This process has one core and Postgres another, where `taskset` is there. Postgres
 * is the embedded one, or that of --url, whose database should be empty. Ends within four minutes.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { createDrain } from '../src/metering/drain.ts'
import { ledgerOf } from '../src/metering/ledger-writer.ts'
import { ensurePartitions } from '../src/metering/month-partitions.ts'
import type { UsageEvent } from '../src/metering/usage-event.ts'
import { startEmbeddedPostgres } from '../src/storage/embedded-postgres.ts'
import { migrate } from '../src/storage/migrate.ts'
import { connectPostgres, type PostgresTarget, type Sql, type StorageLog } from '../src/storage/postgres.ts'
import { canPin, pin, readCpu } from './children.ts'
import { CopyIn } from './copy-in.ts'
import { describeMachine } from './report.ts'
import { copyChunks, copyTable, MadeUsageLog, makeEvents } from './sink-events.ts'
import { medians, type Result, type Sample, sinkTable } from './sink-report.ts'

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    consumers: { type: 'string' },
    batch: { type: 'string' },
    lanes: { type: 'string' },
    url: { type: 'string' },
  },
})
const rounds = flags.quick ? 2 : 5
const recordsPerRound = flags.quick ? 20_000 : 60_000
const consumerCounts = flags.consumers === undefined ? [1, 20, 200] : [Number(flags.consumers)]
const hardStopMs = 240_000
const log: StorageLog = { info: () => {}, warn: () => {}, error: (fields, text) => console.error(text, fields) }

const hardStop = setTimeout(() => {
  console.error('the benchmark took too long')
  void close().finally(() => process.exit(1))
}, hardStopMs)
const { sql, client, close } = await openDatabase(flags.url)
try {
  await migrate(sql, { log })
  await ensurePartitions(sql, Date.now())
  await sql.unsafe(copyTable)
  await measure(sql)
} finally {
  clearTimeout(hardStop)
  await close()
}

interface Database {
  readonly sql: Sql
  /** A connection for COPY. */
  readonly client: pg.Client
  readonly close: () => Promise<void>
}

async function openDatabase(url: string | undefined): Promise<Database> {
  pin(process.pid, 0)
  if (url !== undefined) return connect({ url }, { connectionString: url }, async () => {})
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-sink-'))
  chmodSync(folder, 0o755)
  const postgres = await startEmbeddedPostgres({ dataDir: join(folder, 'postgres'), log })
  pin(postgres.pid, 1)
  const { socketPath, user, database } = postgres
  return connect(postgres, { host: dirname(socketPath), port: 5432, user, database }, async () => {
    await postgres.stop()
    rmSync(folder, { recursive: true, force: true })
  })
}

async function connect(target: PostgresTarget, config: pg.ClientConfig, stop: () => Promise<void>): Promise<Database> {
  const sql = connectPostgres({ ...target, log })
  const client = new pg.Client(config)
  await client.connect()
  const close = async (): Promise<void> => {
    await client.end()
    await sql.end(1_000)
    await stop()
  }
  return { sql, client, close }
}

async function measure(sql: Sql): Promise<void> {
  const machine = describeMachine(canPin)
  const results: Result[] = []
  for (const consumers of consumerCounts) {
    const copies: Sample[] = []
    const drains: Sample[] = []
    for (let round = 0; round <= rounds; round += 1) {
      const events = makeEvents(recordsPerRound, consumers)
      const chunks = copyChunks(events)
      const copy = await timed(() => copyRaw(chunks))
      const drain = await timed(() => drainAll(sql, events))
      // The first round is cold: compilers, caches, and tables without a page.
      if (round === 0) continue
      copies.push(copy)
      drains.push(drain)
      process.stderr.write(
        `${consumers} consumers, round ${round} of ${rounds}: drain ${drain.recordsPerSecond.toFixed(0)}/s, COPY ${copy.recordsPerSecond.toFixed(0)}/s\n`,
      )
    }
    results.push({ consumers, drain: medians(drains), copy: medians(copies), rounds: { drains, copies } })
  }
  await checkSums(sql)
  console.log(sinkTable(results))
  console.log(`\n${JSON.stringify(machine)}`)
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify({ machine, results }, undefined, 2)}\n`)
}

/** Ends with the commit of the last batch. */
async function drainAll(sql: Sql, events: readonly UsageEvent[]): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let written = 0
  const drain = createDrain({
    usageLog: new MadeUsageLog(events),
    ledger: ledgerOf(sql),
    log,
    ...(flags.batch === undefined ? {} : { batchMax: Number(flags.batch) }),
    ...(flags.lanes === undefined ? {} : { lanes: Number(flags.lanes) }),
    onBatch: (result) => {
      written += result.written
      if (written === events.length) resolve()
    },
  })
  drain.start()
  await promise
  await drain.stop()
}

async function copyRaw(chunks: readonly string[]): Promise<void> {
  await client.query(new CopyIn('copy raw_records from stdin', chunks)).done
}

async function timed(work: () => Promise<void>): Promise<Sample> {
  const before = readCpu(process.pid)
  const start = performance.now()
  await work()
  const elapsedMs = performance.now() - start
  const after = readCpu(process.pid)
  const perRecord = (us: number): number => us / recordsPerRound
  return {
    recordsPerSecond: (recordsPerRound / elapsedMs) * 1_000,
    cpuUs: before && after ? perRecord(after.ownUs - before.ownUs) : null,
    postgresCpuUs:
      before && after && flags.url === undefined ? perRecord(after.descendantsUs - before.descendantsUs) : null,
  }
}

/** A ledger that lost or doubled something would be fast, and measured wrongly. */
async function checkSums(sql: Sql): Promise<void> {
  const expected = consumerCounts.length * (rounds + 1) * recordsPerRound
  const [sums] = await sql`
    select (select (count(*)::numeric, sum(cost_nanos), sum(latency_histogram(duration_ms))) from usage_records)
      = (select (sum(requests), sum(cost_nanos), sum(latencies)) from usage_hourly)
      and (select count(*) from usage_records) = ${expected} as agree`
  if (sums?.agree !== true) throw new Error('ledger and rollup do not agree')
}
