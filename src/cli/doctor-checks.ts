import { constants } from 'node:fs'
import { access, statfs } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { Config } from '../config.ts'
import { checkDurability } from '../limits/redis-durability.ts'
import { checkCertificates, readCertificateFiles } from '../server/read-certificates.ts'
import { pendingMigrations } from '../storage/migrate.ts'
import { connectPostgres } from '../storage/postgres.ts'
import { connectRedis } from '../storage/redis.ts'
import { createLogger } from '../telemetry/log.ts'
import type { Check, Finding } from './doctor.ts'
import { lookAtIssuers, lookAtPolicyEngine, lookAtSinks } from './doctor-outside.ts'
import { lookAtRegistry } from './doctor-registry.ts'
import { failed, ok, warning } from './findings.ts'
import { reach, reachUrl } from './reach.ts'

const log = createLogger({ level: 'silent' })

/** In the order in which they are told. */
export const checks: readonly Check[] = [
  {
    name: 'settings',
    remedy: 'See docs/configuration.md.',
    look: async ({ warnings }) =>
      warnings.length === 0 ? [ok('every setting can be read')] : warnings.map((detail) => warning(detail)),
  },
  { name: 'data folder', remedy: 'Set TOLLGATE_DATA_DIR to a folder that this user may write.', look: lookAtFolder },
  { name: 'Postgres', remedy: 'Check DATABASE_URL, the server, and the way to it.', look: lookAtPostgres },
  { name: 'Redis', remedy: 'Check REDIS_URL, the server, and the way to it.', look: lookAtRedis },
  { name: 'Kafka', remedy: 'Check KAFKA_BROKERS, the brokers, and the way to them.', look: lookAtKafka },
  { name: 'events', remedy: 'Check EVENTS_WEBHOOK_URL and EVENTS_FILE.', look: lookAtSinks },
  { name: 'registry', remedy: 'Check REGISTRY_URL, the registry, and the way to it.', look: lookAtRegistry },
  { name: 'policy engine', remedy: 'Check POLICY_ENGINE_URL.', look: lookAtPolicyEngine },
  { name: 'token issuers', remedy: 'Check JWT_ISSUER and JWT_JWKS_URL.', look: lookAtIssuers },
  { name: 'tracing', remedy: 'Check OTEL_EXPORTER_OTLP_ENDPOINT and the collector.', look: lookAtTracing },
  { name: 'TLS', remedy: 'Check TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE.', look: lookAtTls },
]

async function lookAtFolder({ dataDir, database, redis }: Config): Promise<Finding[]> {
  if (database.url !== undefined && redis.url !== undefined && redis.whenAway === 'closed') return [ok('not needed')]
  const folder = resolve(dataDir)
  const existing = await nearest(folder)
  await access(existing, constants.W_OK)
  const { bavail, bsize } = await statfs(existing)
  const freeMb = Math.floor((bavail * bsize) / 1_048_576)
  if (freeMb >= leastFreeMb) return [ok(`${folder}, ${freeMb} MB free`)]
  return [warning(`${folder} has ${freeMb} MB free`, 'Make room: usage waits here for the ledger.')]
}

const leastFreeMb = 1_024

async function nearest(folder: string): Promise<string> {
  return access(folder).then(
    () => folder,
    () => nearest(dirname(folder)),
  )
}

async function lookAtPostgres({ database }: Config): Promise<Finding[]> {
  const { url, maxConnections } = database
  if (url === undefined) return [ok('embedded: the gate starts its own')]
  const sql = connectPostgres({ url, log, maxConnections: 1, applicationName: 'tollgate doctor' })
  try {
    const [server] = await sql<{ version: number; now: Date; most: number; durable: boolean; creates: boolean }[]>`
      select current_setting('server_version_num')::int as version, clock_timestamp() as now,
        current_setting('max_connections')::int as most,
        current_setting('fsync') = 'on' and current_setting('synchronous_commit') <> 'off' as durable,
        has_schema_privilege(current_schema(), 'create') as creates`
    if (server === undefined) return [failed('answers nothing', 'Check DATABASE_URL.')]
    const found: Finding[] = [ok(`version ${Math.floor(server.version / 10_000)}`)]
    if (server.version < leastPostgres * 10_000) {
      found.push(failed(`version ${server.version / 10_000}`, `Use PostgreSQL ${leastPostgres} or newer.`))
    }
    const skewMs = Math.abs(server.now.getTime() - Date.now())
    if (skewMs > mostSkewMs) {
      found.push(warning(`its clock is ${Math.round(skewMs / 1000)} s from this one`, 'Run NTP on both machines.'))
    }
    if (!server.durable) found.push(warning('may lose what it committed', 'Set fsync and synchronous_commit to on.'))
    if (maxConnections > server.most / 2) {
      const detail = `DATABASE_MAX_CONNECTIONS is ${maxConnections}, the server takes ${server.most} in all`
      found.push(warning(detail, 'Leave room for other replicas: lower it, or raise max_connections.'))
    }
    const pending = await pendingMigrations(sql)
    if (pending.length === 0) found.push(ok('the schema is up to date'))
    else if (server.creates)
      found.push(warning(`${pending.length} migrations are missing`, 'The gate applies them at start.'))
    else {
      const remedy = 'Grant create on the schema, or run "tollgate migrate" as its owner.'
      found.push(failed(`${pending.length} migrations are missing, and this user may not create tables`, remedy))
    }
    return found
  } finally {
    await sql.end(1_000)
  }
}

const leastPostgres = 15
const mostSkewMs = 2_000

async function lookAtRedis({ redis: { url } }: Config): Promise<Finding[]> {
  if (url === undefined) return [ok('embedded: limits are kept in the process')]
  const redis = await connectRedis({ url, log })
  try {
    await redis.call('ping')
    const detail = await checkDurability(redis, log)
    if (/^not durable|unknown/.test(detail)) {
      return [warning(detail, 'Set appendonly yes, appendfsync always, and maxmemory-policy noeviction.')]
    }
    return [ok(detail)]
  } finally {
    redis.disconnect()
  }
}

async function lookAtKafka({ events: { kafka } }: Config): Promise<Finding[]> {
  if (kafka === undefined) return [ok('not configured: events go nowhere')]
  const reached = await Promise.allSettled(kafka.brokers.map(reach))
  return reached.map((each, at) => {
    const broker = kafka.brokers[at] ?? ''
    return each.status === 'fulfilled'
      ? ok(`${broker} answers`)
      : failed(`${broker} does not answer`, 'Check KAFKA_BROKERS.')
  })
}

async function lookAtTracing({ tracing }: Config): Promise<Finding[]> {
  if (tracing === undefined) return [ok('off')]
  await reachUrl(tracing.endpoint)
  return [ok(`${tracing.endpoint} answers`)]
}

async function lookAtTls({ server: { tls } }: Config): Promise<Finding[]> {
  if (tls === undefined) return [ok('off: the gate speaks cleartext')]
  const { expiresAtMs } = checkCertificates(await readCertificateFiles(tls), Date.now())
  const days = Math.floor((expiresAtMs - Date.now()) / 86_400_000)
  const text = `the certificate is good for ${days} days`
  return [days < leastDays ? warning(text, 'Put a new one into TLS_CERT_FILE soon.') : ok(text)]
}

const leastDays = 14
