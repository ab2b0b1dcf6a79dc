import type { DescService } from '@bufbuild/protobuf'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health_pb.ts'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { register, type ServiceRegistration } from './rpc.ts'

/**
 * `grpc.health.v1.Health` for the server as a whole (the empty name) and for each service by name. All of them share one
 * state: the process serves, or it does not.
 */
export function createHealth(services: readonly DescService[]): ServerHealth {
  const names: ReadonlySet<string> = new Set(['', Health.typeName, ...services.map((service) => service.typeName)])
  let serving = true
  const watchers = new Set<() => void>()
  const statusOf = (name: string): Status =>
    names.has(name) ? (serving ? Status.SERVING : Status.NOT_SERVING) : Status.SERVICE_UNKNOWN
  return {
    setServing(next) {
      serving = next
      for (const wake of watchers) wake()
    },
    registration: register(
      Health,
      {
        async check({ service }) {
          if (names.has(service)) return { status: statusOf(service) }
          throw new TollgateError('SERVICE_NOT_FOUND', `no service named "${service}" is served here`, {
            metadata: { service },
          })
        },
        async *watch({ service }, call) {
          for (;;) {
            const status = statusOf(service)
            yield { status }
            while (statusOf(service) === status) await nextChange(watchers, call)
          }
        },
        async list() {
          return { statuses: Object.fromEntries([...names].map((name) => [name, { status: statusOf(name) }])) }
        },
      },
      { public: true, longLived: true },
    ),
  }
}

export interface ServerHealth {
  readonly registration: ServiceRegistration
  /** Tells every watcher; true at start. */
  setServing(serving: boolean): void
}

/** Resolves at the next change; rejects when the call is over, so that no watcher outlives its stream. */
async function nextChange(watchers: Set<() => void>, call: Call): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  watchers.add(resolve)
  call.onEnd(reject)
  try {
    await promise
  } finally {
    watchers.delete(resolve)
    call.offEnd(reject)
  }
}
