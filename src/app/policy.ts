import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import type { EventPublisher } from '../events/event-publisher.ts'
import { violationEvent } from '../events/violation-event.ts'
import { newId } from '../ids.ts'
import { createLocalJudge, type Judge } from '../policy/judge.ts'
import { createPolicyEngine, type PolicyEngine } from '../policy/policy-engine.ts'
import { createPolicyRecorder, type PolicyRecorder } from '../policy/policy-recorder.ts'
import { startPolicyRetention } from '../policy/policy-retention.ts'
import { createRemoteJudge, type RemoteJudge } from '../policy/remote-judge.ts'
import type { Snapshots } from '../registry/snapshots.ts'
import type { Sql } from '../storage/postgres.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Closers } from './closers.ts'

/** What decides about calls, and what is kept of its decisions. */
export interface Policy {
  readonly engine: PolicyEngine
  readonly localJudge: Judge
  /** Undefined: policies are judged here. */
  readonly remoteJudge: RemoteJudge | undefined
  readonly recorder: PolicyRecorder
}

export interface PolicyParts {
  readonly sql: Sql
  readonly log: Logger
  /** Unix milliseconds. */
  readonly now: () => number
  readonly metrics: Metrics
  readonly snapshots: Snapshots
  readonly events: EventPublisher
}

/** Opens the policy engine: the one that is configured, or the built-in one. */
export function openPolicy(
  config: Config,
  { sql, log, now, metrics, snapshots, events }: PolicyParts,
  closers: Closers,
): Policy {
  const retention = startPolicyRetention({ sql, log, ...config.policy })
  closers.push(() => retention.stop())
  const recorder = createPolicyRecorder({
    sql,
    log,
    newId,
    now,
    decisionsPerSecond: config.policy.decisionsPerSecond,
    onViolation(violation) {
      metrics.policyViolations.of(violation.serviceId, violation.policyId, violation.severity).inc()
      events.publish(violationEvent(violation))
    },
    onDropped: (kind) => metrics.policyRecordsDropped.of(kind).inc(),
  })
  closers.push(() => recorder.close())
  const localJudge = createLocalJudge({
    policies: () => snapshots.current().policies,
    ...config.policy,
    onFailure: ({ policy: { id }, isCost }) => metrics.policyFailures.of(id, isCost ? 'cost' : 'error').inc(),
  })
  const remoteJudge = openRemoteJudge(config, log, metrics)
  closers.push(async () => remoteJudge?.close())
  return { engine: createPolicyEngine(remoteJudge ?? localJudge, now), localJudge, remoteJudge, recorder }
}

function openRemoteJudge({ policy }: Config, log: Logger, metrics: Metrics): RemoteJudge | undefined {
  if (policy.engine === undefined) return undefined
  const { failMode } = policy
  return createRemoteJudge({
    ...policy.engine,
    failMode,
    now: Date.now,
    onAsked: (outcome) => metrics.policyEngineRequests.of(outcome).inc(),
    onChange: (state, reason) => log.warn({ state, reason, failMode }, 'the breaker of the policy engine changed'),
  })
}
