import type { MessageInitShape } from '@bufbuild/protobuf'
import { type Duration, durationFromMs, durationMs } from '@bufbuild/protobuf/wkt'
import type {
  HealthCheck as HealthCheckMessage,
  HealthCheckSchema,
} from '../../gen/marketplace/v1/endpoint_health_pb.ts'

/** How an endpoint is asked whether it is well. */
export interface HealthCheck {
  readonly probe: Probe
  /** Pause between two checks, in milliseconds. */
  readonly intervalMs: number
  /** Longest wait for one answer. */
  readonly timeoutMs: number
  /** Good checks in a row that make a sick endpoint well; at least 1. */
  readonly healthyThreshold: number
  /** Bad checks in a row that make an endpoint sick; at least 1. */
  readonly unhealthyThreshold: number
}

export type Probe =
  | { readonly kind: 'http' /** Absolute, with a query if it has one. */; readonly path: string }
  | { readonly kind: 'grpc' /** Empty: the server as a whole. */; readonly service: string }

/** A check of the contract, which has passed its rules, with every default. */
export function healthCheckOf(message: HealthCheckMessage): HealthCheck {
  const { probe } = message
  return {
    probe:
      probe.case === 'grpcService'
        ? { kind: 'grpc', service: probe.value }
        : { kind: 'http', path: probe.value ?? '/' },
    intervalMs: msOf(message.interval) ?? 10_000,
    timeoutMs: msOf(message.timeout) ?? 2_000,
    healthyThreshold: message.healthyThreshold || 2,
    unhealthyThreshold: message.unhealthyThreshold || 3,
  }
}

/** A check as its callers see it. */
export function healthCheckMessage(check: HealthCheck): MessageInitShape<typeof HealthCheckSchema> {
  const { probe, intervalMs, timeoutMs, healthyThreshold, unhealthyThreshold } = check
  return {
    probe:
      probe.kind === 'grpc' ? { case: 'grpcService', value: probe.service } : { case: 'httpPath', value: probe.path },
    interval: durationFromMs(intervalMs),
    timeout: durationFromMs(timeoutMs),
    healthyThreshold,
    unhealthyThreshold,
  }
}

function msOf(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Math.max(1, Math.round(durationMs(duration)))
}
