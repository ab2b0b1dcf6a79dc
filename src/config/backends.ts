import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { setting } from './variable.ts'

/** Calls to the backends of published services. */
export const backendVariables = {
  backendConnectionsPerHost: setting(is.integer(1, 10_000), {
    name: 'BACKEND_CONNECTIONS_PER_HOST',
    group: 'Backends',
    default: 100,
    description: 'Kept-alive connections to each backend host.',
  }),
  backendConnectTimeoutMs: setting(is.integer(10, 60_000), {
    name: 'BACKEND_CONNECT_TIMEOUT_MS',
    group: 'Backends',
    default: 2000,
    unit: 'milliseconds',
    description: 'Longest wait for a connection to a backend, TLS included.',
  }),
  responseCacheMaxBytes: setting(is.integer(0, 4_294_967_296), {
    name: 'RESPONSE_CACHE_MAX_BYTES',
    group: 'Backends',
    default: 67_108_864,
    unit: 'bytes',
    description:
      'Answers that this process keeps for services with a response cache, all together; one answer takes a sixteenth at most. 0 keeps none.',
  }),
  maxResponseBytes: setting(is.integer(1024, 268_435_456), {
    name: 'MAX_RESPONSE_BYTES',
    group: 'Backends',
    default: 16_777_216,
    unit: 'bytes',
    description: "Largest answer that is taken from a service's backend.",
  }),
  breakerFailures: setting(is.integer(1, 10_000), {
    name: 'BREAKER_FAILURES',
    group: 'Backends',
    default: 5,
    description: "Failures within BREAKER_WINDOW_MS that open an endpoint's breaker.",
  }),
  breakerWindowMs: setting(is.integer(100, 600_000), {
    name: 'BREAKER_WINDOW_MS',
    group: 'Backends',
    default: 10_000,
    unit: 'milliseconds',
    description: 'Window in which failures are counted.',
  }),
  breakerResetMs: setting(is.integer(10, 600_000), {
    name: 'BREAKER_RESET_MS',
    group: 'Backends',
    default: 10_000,
    unit: 'milliseconds',
    description: 'Pause of an open breaker before it lets one probe through.',
  }),
} as const

/** How backends are reached, and what is taken from them. */
export interface BackendSettings {
  readonly connectionsPerHost: number
  readonly connectTimeoutMs: number
  readonly maxResponseBytes: number
  readonly responseCacheMaxBytes: number
  readonly breaker: { readonly failures: number; readonly windowMs: number; readonly resetMs: number }
}

export function readBackends(from: SettingsReader): BackendSettings {
  return {
    connectionsPerHost: from.read(backendVariables.backendConnectionsPerHost),
    connectTimeoutMs: from.read(backendVariables.backendConnectTimeoutMs),
    maxResponseBytes: from.read(backendVariables.maxResponseBytes),
    responseCacheMaxBytes: from.read(backendVariables.responseCacheMaxBytes),
    breaker: {
      failures: from.read(backendVariables.breakerFailures),
      windowMs: from.read(backendVariables.breakerWindowMs),
      resetMs: from.read(backendVariables.breakerResetMs),
    },
  }
}
