import type { HealthCheck } from '../registry/health-check.ts'
import { type EndpointRecord, type ServiceRecord, takesCalls } from '../registry/records.ts'
import { afterCheck, type EndpointHealth } from './endpoint-health.ts'
import type { ProbeEndpoint } from './probe-endpoint.ts'

export interface HealthChecksOptions {
  readonly probe: ProbeEndpoint
  /** Unix milliseconds. */
  readonly now: () => number
  /** Evenly from 0 (inclusive) to 1: replicas that started together do not check together. */
  readonly random: () => number
  /** Told when an endpoint became sick or well; must not throw or wait. */
  readonly onChange: (checked: CheckedEndpoint) => void
}

export interface CheckedEndpoint {
  readonly serviceId: string
  readonly endpointId: string
  readonly health: EndpointHealth
}

/** The health checks of this replica. */
export interface HealthChecks {
  /** Checks exactly the endpoints of these services that ask for it, from now on; what was known of those that stay is kept. */
  follow(services: Iterable<ServiceRecord>): void
  /** Undefined for an endpoint without a check, and before the first one. */
  of(endpointId: string): EndpointHealth | undefined
  /** Every endpoint that was checked. */
  all(): Iterable<CheckedEndpoint>
  close(): void
}

export function createHealthChecks(options: HealthChecksOptions): HealthChecks {
  const { probe, now, random, onChange } = options
  const watched = new Map<string, Watched>()

  function begin(serviceId: string, { id, url }: EndpointRecord, check: HealthCheck, key: string): void {
    const ending = new AbortController()
    const before = watched.get(id)
    before?.ending.abort()
    // Other settings ask the same endpoint.
    const own: Watched = { serviceId, key, ending, health: before?.health }
    watched.set(id, own)

    const checkOnce = async (): Promise<void> => {
      const failure = await probe(url, check, ending.signal)
      if (ending.signal.aborted) return
      const health = afterCheck(own.health, failure, check, now())
      const hasChanged = health.isSick !== (own.health?.isSick ?? false)
      own.health = health
      if (hasChanged) onChange({ serviceId, endpointId: id, health })
      schedule(check.intervalMs * (0.9 + random() / 5))
    }
    const schedule = (ms: number): void => {
      const timer = setTimeout(() => void checkOnce(), ms)
      ending.signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
    }
    schedule(random() * Math.min(check.intervalMs, 1_000))
  }

  return {
    follow(services) {
      const wanted = new Set<string>()
      for (const service of services) {
        if (!takesCalls(service.status)) continue
        for (const endpoint of service.endpoints) {
          const { id, url, healthCheck } = endpoint
          if (healthCheck === undefined) continue
          wanted.add(id)
          const key = JSON.stringify([url, healthCheck])
          if (watched.get(id)?.key !== key) begin(service.id, endpoint, healthCheck, key)
        }
      }
      for (const [id, { ending }] of watched) {
        if (wanted.has(id)) continue
        ending.abort()
        watched.delete(id)
      }
    },
    of: (endpointId) => watched.get(endpointId)?.health,
    *all() {
      for (const [endpointId, { serviceId, health }] of watched) {
        if (health !== undefined) yield { serviceId, endpointId, health }
      }
    },
    close() {
      for (const { ending } of watched.values()) ending.abort()
      watched.clear()
    },
  }
}

interface Watched {
  readonly serviceId: string
  /** Of what is asked, and how. */
  readonly key: string
  readonly ending: AbortController
  health: EndpointHealth | undefined
}
