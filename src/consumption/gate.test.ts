import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Limits } from '../limits/limits.ts'
import { createLocalLimits } from '../limits/local-limits.ts'
import { limitsFor } from '../limits/tiers.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { createBuiltinPolicyEngine } from '../policy/policy-engine.ts'
import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import type { Dispatcher } from '../routing/dispatcher.ts'
import { createGate, type GateOptions, type GateRefusal } from './gate.ts'

const log = pino({ level: 'silent' })
const organizationId = newId()
const service: ServiceRecord = {
  id: newId(),
  name: 'service',
  version: '1.0.0',
  description: '',
  status: 'active',
  endpoints: [{ id: newId(), url: 'http://127.0.0.1:9/', protocol: 'openai', credentialRef: '', timeoutMs: undefined }],
  price: undefined,
  prices: [
    { version: 'v1', currency: 'USD', effectiveFromMs: 0, model: { kind: 'per_request', requestNanos: 1_000_000 } },
  ],
  defaultMaxOutputTokens: 100,
  createdAtMs: 0,
}
const consumer: ConsumerRecord = {
  id: newId(),
  organizationId,
  name: 'consumer',
  tier: 'premium',
  status: 'active',
  grantedServices: new Set(['*']),
  overrides: {},
}
const answer = Buffer.from('{"model":"m","usage":{"prompt_tokens":3,"completion_tokens":4}}')

let folder: string
let limits: Limits
let dispatched = 0

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-gate-'))
  limits = await createLocalLimits({ folder, seed: async () => 0, log })
  dispatched = 0
})

afterEach(async () => {
  await limits.close()
  await rm(folder, { recursive: true, force: true })
})

const dispatcher: Dispatcher = {
  async dispatch(_endpoint, attempt) {
    dispatched += 1
    return attempt.read(answer)
  },
  breakers: () => [],
  close: async () => undefined,
}

function route(changes: Partial<GateOptions>, signal = new AbortController().signal) {
  const gate = createGate({
    snapshots: { current: () => buildSnapshot({ version: 1, services: [service], consumers: [consumer], nowMs: 0 }) },
    policy: createBuiltinPolicyEngine(),
    limits,
    dispatcher,
    rateLimiting: true,
    observer: { refused: () => {}, recorded: () => {}, policyChecked: () => {} },
    log,
    now: Date.now,
    newId,
    ...changes,
  })
  const principal = { kind: 'key', roles: ['consumer'], keyId: 'key', consumerId: consumer.id, organizationId } as const
  const request = { consumerId: consumer.id, serviceId: service.id, payload: chat('x'), metadata: {} }
  return gate.route(request, { ...testCall(principal), id: newId(), signal })
}

async function recorded(): Promise<UsageEvent[]> {
  const entries = await limits.usageLog.read(10, 1, new AbortController().signal)
  await limits.usageLog.acknowledge(entries)
  return entries.map(({ event }) => event)
}

async function usedTokens(): Promise<number> {
  const [, quota] = limitsFor(consumer, service.id, Date.now())
  const [state] = await limits.read(organizationId, [quota])
  return quota.capacity - (state?.remaining ?? 0)
}

test('a call whose caller left during admission reaches no backend and takes nothing', async () => {
  const caller = new AbortController()
  const admit: Limits['admit'] = async (admission) => {
    const result = await limits.admit(admission)
    caller.abort(new TollgateError('CANCELLED', 'gone'))
    return result
  }
  const call = route({ limits: { ...through(limits), admit } }, caller.signal)
  await expect(call).rejects.toMatchObject({ reason: 'CANCELLED' })
  expect(dispatched).toBe(0)
  expect(await recorded()).toMatchObject([{ status: 'cancelled', attempt: 0, endpointId: '', costNanos: 0 }])
  expect(await usedTokens()).toBe(0)
})

test('a consumer without a grant is refused, unless policy validation is switched off', async () => {
  const stranger = { ...consumer, grantedServices: new Set<string>() }
  const snapshots = {
    current: () => buildSnapshot({ version: 1, services: [service], consumers: [stranger], nowMs: 0 }),
  }
  await expect(route({ snapshots })).rejects.toMatchObject({ reason: 'POLICY_DENIED' })
  expect(dispatched).toBe(0)
  expect(await route({ snapshots, policy: undefined })).toMatchObject({ event: { status: 'succeeded' } })
})

test('a refusal says whose call it was', async () => {
  const refusals: GateRefusal[] = []
  const observer = {
    refused: (refusal: GateRefusal) => refusals.push(refusal),
    recorded: () => {},
    policyChecked: () => {},
  }
  const broke = { ...consumer, overrides: { tokensPerMonth: 0 } }
  const snapshots = { current: () => buildSnapshot({ version: 1, services: [service], consumers: [broke], nowMs: 0 }) }
  await expect(route({ observer, snapshots })).rejects.toMatchObject({ reason: 'QUOTA_EXCEEDED' })
  expect(refusals).toEqual([
    {
      requestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      organizationId,
      consumerId: consumer.id,
      keyId: 'key',
      serviceId: service.id,
      tier: 'premium',
      error: expect.objectContaining({ reason: 'QUOTA_EXCEEDED' }),
    },
  ])
})

test('what an observer does to a recorded call is not the caller’s concern', async () => {
  const observer = {
    refused: () => {},
    policyChecked: () => {},
    recorded: () => {
      throw new Error('broken')
    },
  }
  const { event } = await route({ observer })
  expect(await recorded()).toEqual([event])
})

test('usage that could not be recorded while the caller waited is recorded later, exactly and once', async () => {
  let failures = 0
  const settle: Limits['settle'] = async (settlement) => {
    failures += 1
    if (failures <= 6) throw new TollgateError('LIMITS_UNAVAILABLE', 'away')
    await limits.settle(settlement)
  }
  const call = route({ limits: { ...through(limits), settle } })
  await expect(call).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
  expect(await recorded()).toEqual([])
  const [event] = await eventually(async () => {
    const events = await recorded()
    return events.length > 0 && events
  })
  expect(event).toMatchObject({ status: 'succeeded', costNanos: 1_000_000, tokens: { input: 3, output: 4 } })
  expect(await usedTokens()).toBe(7)
})

/** The same limits with methods that can be replaced. */
function through(inner: Limits): Limits {
  return {
    admit: (admission) => inner.admit(admission),
    settle: (settlement) => inner.settle(settlement),
    read: (organization, asked) => inner.read(organization, asked),
    usageLog: inner.usageLog,
    health: () => inner.health(),
    close: () => inner.close(),
  }
}
