import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { readTls, type TlsSettings, tlsVariables } from './tls.ts'
import { setting } from './variable.ts'

/** The listener and what its callers may do. */
export const serverVariables = {
  host: setting(is.host, {
    name: 'HOST',
    group: 'Server',
    default: '0.0.0.0',
    devDefault: '127.0.0.1',
    description:
      'Address to listen on. `tollgate dev` prints working keys and refuses an address that other machines can reach.',
  }),
  port: setting(is.integer(0, 65535), {
    name: 'PORT',
    group: 'Server',
    default: 3000,
    description: 'Port of the one listener; 0 takes any free port.',
  }),
  ...tlsVariables,
  corsOrigins: setting(is.origins, {
    name: 'CORS_ORIGINS',
    group: 'Server',
    default: [],
    description: 'Browser origins that may call with gRPC-Web and Connect. Without it, none.',
  }),
  trustedProxies: setting(is.networks, {
    name: 'TRUSTED_PROXIES',
    group: 'Server',
    default: [],
    description:
      'Addresses and networks, such as `10.0.0.0/8`, of proxies in front of the gate, separated by commas: their `X-Forwarded-For` says who calls. Without it nobody is believed, and behind a proxy all callers have its address.',
  }),
  maxMessageBytes: setting(is.integer(1024, 67_108_864), {
    name: 'MAX_MESSAGE_BYTES',
    group: 'Server',
    default: 4_194_304,
    unit: 'bytes',
    description: 'Largest request message, after decompression. Larger ones are refused with RESOURCE_EXHAUSTED.',
  }),
  defaultDeadlineMs: setting(is.integer(1, 86_400_000), {
    name: 'DEFAULT_DEADLINE_MS',
    group: 'Server',
    default: 60_000,
    unit: 'milliseconds',
    description: 'Deadline of a call whose caller named none.',
  }),
  maxDeadlineMs: setting(is.integer(1, 86_400_000), {
    name: 'MAX_DEADLINE_MS',
    group: 'Server',
    default: 600_000,
    unit: 'milliseconds',
    description: 'Longest deadline that a caller gets; a longer one is shortened to it.',
  }),
  maxStreamsPerConnection: setting(is.integer(1, 100_000), {
    name: 'MAX_STREAMS_PER_CONNECTION',
    group: 'Server',
    default: 1000,
    description: 'Concurrent calls on one HTTP/2 connection.',
  }),
  maxConnectionAgeMs: setting(is.integer(1000, 86_400_000), {
    name: 'MAX_CONNECTION_AGE_MS',
    group: 'Server',
    default: 1_800_000,
    unit: 'milliseconds',
    description:
      'Age, with jitter, at which a connection is asked to go away, so that load balancers spread callers anew.',
  }),
  keepAliveMs: setting(is.integer(100, 3_600_000), {
    name: 'KEEPALIVE_MS',
    group: 'Server',
    default: 60_000,
    unit: 'milliseconds',
    description: 'An idle HTTP/2 connection is pinged this often; an idle HTTP/1.1 connection is closed after it.',
  }),
  headersTimeoutMs: setting(is.integer(100, 3_600_000), {
    name: 'HEADERS_TIMEOUT_MS',
    group: 'Server',
    default: 10_000,
    unit: 'milliseconds',
    description: 'Longest wait for the headers of a request.',
  }),
  bodyTimeoutMs: setting(is.integer(100, 3_600_000), {
    name: 'BODY_TIMEOUT_MS',
    group: 'Server',
    default: 60_000,
    unit: 'milliseconds',
    description: 'Longest wait for the complete body of a request.',
  }),
  drainMs: setting(is.integer(0, 3_600_000), {
    name: 'DRAIN_TIMEOUT_MS',
    group: 'Server',
    default: 25_000,
    unit: 'milliseconds',
    devDefault: 10_000,
    description:
      'After SIGTERM, calls in flight have this long to end. Keep it below the grace period of the platform.',
  }),
  workers: setting(is.workers, {
    name: 'WORKERS',
    group: 'Server',
    default: 1,
    description:
      'Processes of `tollgate serve` that share the port; `--workers` says the same. `auto`, or 0, is one for each core. More than one need REDIS_URL. See [operations](operations.md#workers).',
  }),
} as const

/** The listener, with every bound that its callers meet. */
export interface ServerSettings {
  readonly host: string
  readonly port: number
  /** Undefined: cleartext. */
  readonly tls: TlsSettings | undefined
  readonly trustedProxies: readonly string[]
  readonly corsOrigins: readonly string[]
  readonly maxMessageBytes: number
  readonly defaultDeadlineMs: number
  readonly maxDeadlineMs: number
  readonly maxStreamsPerConnection: number
  readonly maxConnectionAgeMs: number
  readonly keepAliveMs: number
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  readonly drainMs: number
}

/** Refuses a default deadline above the longest one. */
export function readServer(from: SettingsReader): ServerSettings {
  const settings: ServerSettings = {
    host: from.read(serverVariables.host),
    port: from.read(serverVariables.port),
    tls: readTls(from),
    trustedProxies: from.read(serverVariables.trustedProxies),
    corsOrigins: from.read(serverVariables.corsOrigins),
    maxMessageBytes: from.read(serverVariables.maxMessageBytes),
    defaultDeadlineMs: from.read(serverVariables.defaultDeadlineMs),
    maxDeadlineMs: from.read(serverVariables.maxDeadlineMs),
    maxStreamsPerConnection: from.read(serverVariables.maxStreamsPerConnection),
    maxConnectionAgeMs: from.read(serverVariables.maxConnectionAgeMs),
    keepAliveMs: from.read(serverVariables.keepAliveMs),
    headersTimeoutMs: from.read(serverVariables.headersTimeoutMs),
    bodyTimeoutMs: from.read(serverVariables.bodyTimeoutMs),
    drainMs: from.read(serverVariables.drainMs),
  }
  if (settings.defaultDeadlineMs > settings.maxDeadlineMs)
    from.refuse(
      serverVariables.defaultDeadlineMs,
      `is above MAX_DEADLINE_MS (${settings.maxDeadlineMs})`,
      'Lower it, or raise MAX_DEADLINE_MS',
    )
  return settings
}
