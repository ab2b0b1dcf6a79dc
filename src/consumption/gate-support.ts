import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { keyOf, testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import { limitsOfCall } from '../limits/call-limits.ts'
import { unitsOf } from '../limits/limit-keys.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import type { Limits, PeriodSeed } from '../limits/limits.ts'
import { createLocalLimits } from '../limits/local-limits.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { createBuiltinPolicyEngine } from '../policy/policy-engine.ts'
import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import type { Attempt, Dispatcher } from '../routing/dispatcher.ts'
import { createGate, type GateOptions, type GateRequest } from './gate.ts'
import { createResponseCache } from './response-cache.ts'

const log = pino({ level: 'silent' })

export const organizationId = newId()
export const service = serviceRecord({
  id: newId(),
  endpoints: [endpointRecord({ id: newId() })],
  prices: [
    { version: 'v1', currency: 'USD', effectiveFromMs: 0, model: { kind: 'per_request', requestNanos: 1_000_000 } },
  ],
  defaultMaxOutputTokens: 100,
})
export const consumer: ConsumerRecord = {
  id: newId(),
  organizationId,
  name: 'consumer',
  tier: 'premium',
  status: 'active',
  grantedServices: new Set(['*']),
  overrides: {},
  projectId: undefined,
  clearance: 'internal',
  homeRegion: '',
}

/** What every backend answers: 3 and 4 tokens. */
export const answer = Buffer.from(
  '{"model":"m","choices":[{"message":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
)

/** A call of the consumer to the service. */
export const plain: GateRequest = {
  consumerId: consumer.id,
  serviceId: service.id,
  payload: chat('x'),
  metadata: {},
  idempotencyKey: '',
  dialect: 'native',
}

/** An observer that hears nothing. */
export const silent: GateOptions['observer'] = {
  refused: () => {},
  recorded: () => {},
  thresholdPassed: () => {},
  policyDecided: () => {},
  cacheAsked: () => {},
}

export type Dispatching = Pick<Dispatcher, 'dispatch'>

/** The attempt of that number at the endpoint of that number. */
export function attempt(number: number, error?: TollgateError): Attempt {
  const facts = { startMs: 0, headersMs: 1, firstTokenMs: undefined, status: 200, receivedBytes: 1 }
  return { ...facts, id: String(number), number, endpointId: `endpoint-${number}`, durationMs: number, error }
}

/** A limit rule for all services; money is in USD. */
export function rule(scope: LimitRule['scope'], subjectId: string, name: LimitRule['name'], amount: number): LimitRule {
  const currency = name === 'cost_per_month' ? 'USD' : undefined
  return { scope, subjectId, serviceId: undefined, name, amount, burst: undefined, currency }
}

/** Limits in a folder of their own, whose ledger has nothing yet: all that counts is on its way. */
export async function openTestLimits(): Promise<{ limits: Limits; folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-gate-'))
  const seed: PeriodSeed = async (limit, waiting) =>
    waiting.reduce((sum, event) => sum + (unitsOf(limit, event) ?? 0), 0)
  return { limits: await createLocalLimits({ folder, seed, log }), folder }
}

/** A gate with limits of its own, for one test. */
export async function openTestGate(): Promise<TestGate> {
  const { limits, folder } = await openTestLimits()
  return new TestGate(folder, limits)
}

export class TestGate {
  readonly limits: Limits
  /** Limit rules that are in force. */
  rules: LimitRule[] = []
  /** Calls that reached a backend. */
  dispatched = 0
  /** Answers every call with {@link answer}. */
  readonly dispatcher: Dispatching = {
    dispatch: async (_service, task, { signal }) => {
      if (signal.aborted) return { attempts: [], error: signal.reason }
      this.dispatched += 1
      return { attempts: [attempt(1)], value: task.read(answer) }
    },
  }
  readonly #folder: string

  constructor(folder: string, limits: Limits) {
    this.#folder = folder
    this.limits = limits
  }

  /** The control plane, with the rules of this moment. */
  snapshotOf(changes: { services?: ServiceRecord[]; consumers?: ConsumerRecord[] } = {}) {
    const parts = { services: [service], consumers: [consumer], limitRules: this.rules, ...changes }
    return { current: () => buildSnapshot({ version: 1, nowMs: 0, ...parts }) }
  }

  /** Makes a call through a gate that differs from the usual one in `changes`. */
  route(
    {
      dispatcher = this.dispatcher,
      ...changes
    }: Omit<Partial<GateOptions>, 'dispatcher'> & { dispatcher?: Dispatching },
    signal = new AbortController().signal,
    asked: Partial<GateRequest> = {},
    headers: Readonly<Record<string, string>> = {},
  ) {
    const gate = createGate({
      snapshots: this.snapshotOf(),
      policy: createBuiltinPolicyEngine(),
      limits: this.limits,
      cache: createResponseCache(0, Date.now),
      dispatcher: {
        ...dispatcher,
        open: async () => ({ attempts: [], error: new TollgateError('INTERNAL', 'no streams here') }),
      },
      openCalls: { follow: () => () => {} },
      rateLimiting: true,
      observer: silent,
      log,
      now: Date.now,
      newId,
      ...changes,
    })
    const principal = { ...keyOf({ id: consumer.id, organizationId }), keyId: 'key' }
    const request = { ...plain, ...asked }
    return gate.route(request, testCall(principal, { id: newId(), signal, header: (name) => headers[name] }))
  }

  /** Events of calls that ended since it was last asked. */
  async recorded(): Promise<UsageEvent[]> {
    const batch = await this.limits.usageLog.read(10, 1, new AbortController().signal)
    const events = [...batch.events()]
    await batch.acknowledge()
    return events
  }

  /** What is used and held of the limits of that name. */
  async used(name: string): Promise<number[]> {
    const call = { consumer, serviceId: service.id, keyId: 'key', atMs: Date.now() }
    const ruled = this.snapshotOf().current().limitRules
    const asked = limitsOfCall(ruled, call).filter((limit) => limit.name === name)
    const states = await this.limits.read(asked)
    return asked.map((limit, index) => limit.capacity - (states[index]?.remaining ?? 0))
  }

  async close(): Promise<void> {
    await this.limits.close()
    await rm(this.#folder, { recursive: true, force: true })
  }
}
