import type { Mode } from '../config-parsers.ts'
import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** What is kept, and where. */
export const storageVariables = {
  dataDir: setting(is.path, {
    name: 'TOLLGATE_DATA_DIR',
    group: 'Storage',
    default: '.tollgate',
    description:
      'Folder of everything that is kept on this machine: embedded Postgres, embedded usage log, usage while Redis is away, demo facts.',
  }),
  databaseUrl: optional(is.url('postgres', 'postgresql'), {
    name: 'DATABASE_URL',
    group: 'Storage',
    secret: true,
    description: 'Postgres. Without it an embedded Postgres runs in TOLLGATE_DATA_DIR.',
  }),
  databaseMaxConnections: setting(is.integer(3, 1000), {
    name: 'DATABASE_MAX_CONNECTIONS',
    group: 'Storage',
    default: 20,
    aliases: ['DATABASE_POOL_SIZE'],
    description: 'Connections of this process to Postgres; one or two of them write the ledger.',
  }),
  redisUrl: optional(is.url('redis', 'rediss'), {
    name: 'REDIS_URL',
    group: 'Storage',
    secret: true,
    description:
      'Redis 7 or newer with `appendonly yes`. Without it limits and usage log are embedded, which is right for one process only.',
  }),
  redisCommandTimeoutMs: setting(is.integer(10, 60_000), {
    name: 'REDIS_COMMAND_TIMEOUT_MS',
    group: 'Storage',
    default: 1000,
    unit: 'milliseconds',
    description: 'Longest wait for an answer of Redis; after it Redis counts as away.',
  }),
  limitsWhenRedisIsAway: setting(is.oneOf('closed', 'open', 'local'), {
    name: 'LIMITS_WHEN_REDIS_IS_AWAY',
    group: 'Storage',
    default: 'closed',
    description:
      'Calls while Redis cannot be reached: `closed` refuses them with LIMITS_UNAVAILABLE, `open` admits them without limits, `local` within a share of each limit for each replica. `open` and `local` keep usage in TOLLGATE_DATA_DIR meanwhile. See [operations](operations.md#when-redis-is-away).',
  }),
  admissionLeases: setting(is.integer(0, 50), {
    name: 'ADMISSION_LEASES',
    group: 'Storage',
    default: 0,
    description:
      'Percent of what is left of a limit in Redis that all replicas together may hold in slices for calls to come, for example 12; 0: every call asks Redis. See [limits](limits.md#slices).',
  }),
  usageRetentionMonths: setting(is.zeroOr(2, 1200), {
    name: 'USAGE_RETENTION_MONTHS',
    group: 'Storage',
    default: 0,
    description:
      'Usage records of this many whole months before the current one are kept; older ones are dropped for good. 0 keeps all. Hourly sums are always kept.',
  }),
  changesRetentionDays: setting(is.integer(0, 36_500), {
    name: 'CHANGES_RETENTION_DAYS',
    group: 'Storage',
    default: 30,
    description:
      'Changes of the control plane stay in the log that watches go on from for this many days. 0 keeps all. The audit log is another one.',
  }),
} as const

/** Where everything is kept, and for how long. */
export interface StorageSettings {
  readonly dataDir: string
  /** `url` undefined: embedded Postgres. */
  readonly database: { readonly url: string | undefined; readonly maxConnections: number }
  /** 0: every usage record is kept. */
  readonly usageRetentionMonths: number
  /** 0: the log of changes is kept as a whole. */
  readonly changesRetentionDays: number
  /** `url` undefined: embedded limits and usage log. */
  readonly redis: {
    readonly url: string | undefined
    readonly commandTimeoutMs: number
    readonly whenAway: WhenRedisIsAway
    /** Most of what is left of a limit that all replicas together hold in slices. */
    readonly slicePercent: number
  }
}

export type WhenRedisIsAway = (typeof storageVariables.limitsWhenRedisIsAway.defaults)[Mode]

export function readStorage(from: SettingsReader): StorageSettings {
  return {
    dataDir: from.read(storageVariables.dataDir),
    database: {
      url: from.read(storageVariables.databaseUrl),
      maxConnections: from.read(storageVariables.databaseMaxConnections),
    },
    redis: {
      url: from.read(storageVariables.redisUrl),
      commandTimeoutMs: from.read(storageVariables.redisCommandTimeoutMs),
      whenAway: from.read(storageVariables.limitsWhenRedisIsAway),
      slicePercent: from.read(storageVariables.admissionLeases),
    },
    usageRetentionMonths: from.read(storageVariables.usageRetentionMonths),
    changesRetentionDays: from.read(storageVariables.changesRetentionDays),
  }
}
