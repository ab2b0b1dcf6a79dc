import { describe, expect, it } from 'vitest'
import { PolicyEngine } from '../../gen/marketplace/v1/policy_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { consumerRecord, serviceRecord } from '../../test/support/registry-records.ts'
import type { ConsumerRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { noRequest } from './facts.ts'
import { createLocalJudge, defaultLimits } from './judge.ts'
import { createBuiltinPolicyEngine } from './policy-engine.ts'
import { createPolicyService } from './policy-service.ts'

const chat = serviceRecord({ id: 'chat-id', name: 'chat' })

function consumer(id: string, grants: string[], status: ConsumerRecord['status'] = 'active'): ConsumerRecord {
  return consumerRecord({ id, organizationId: 'o', name: id, status, grantedServices: new Set(grants) })
}

const consumers = [
  consumer('one', ['chat-id']),
  consumer('all', ['*']),
  consumer('none', []),
  consumer('byName', ['chat']),
  consumer('paused', ['*'], 'suspended'),
]
const services = [chat, { ...chat, id: 'old-id', name: 'old', status: 'retired' as const }]
const snapshot = buildSnapshot({ version: 1, services, consumers, nowMs: 0 })
const service = createPolicyService({
  engine: createBuiltinPolicyEngine(),
  snapshots: { current: () => snapshot },
  recorder: { report: async () => 'violation-id' },
  describe: () => noRequest,
  judge: createLocalJudge({ policies: () => [], failMode: 'closed', limits: defaultLimits }),
  now: Date.now,
})
const { checkAccess, validateConsumption } = PolicyEngine.method

describe('the built-in engine', () => {
  it.each(['one', 'all'])('allows what is granted: %s', async (consumerId) => {
    for (const serviceId of ['chat-id', 'chat']) {
      const decision = await invoke(checkAccess, service.checkAccess, { consumerId, serviceId }, administrator)
      expect(decision).toMatchObject({ allowed: true, reason: '', violations: [] })
    }
  })

  it.each(['none', 'byName'])('denies what is not, and says what would mend it: %s', async (consumerId) => {
    const request = { consumerId, serviceId: 'chat' }
    for (const decision of [
      await invoke(checkAccess, service.checkAccess, request, administrator),
      await invoke(validateConsumption, service.validateConsumption, request, administrator),
    ]) {
      expect(decision.allowed).toBe(false)
      expect(decision.violations).toMatchObject([{ policyId: 'builtin/grants', severity: 'critical' }])
      expect(decision.reason).toBe(decision.violations[0]?.message)
      expect(decision.reason).toContain('chat-id')
    }
  })
})

describe('ValidateConsumption', () => {
  it('says no for a consumer or a service that takes no calls, with every violation', async () => {
    const request = { consumerId: 'paused', serviceId: 'old' }
    const decision = await invoke(validateConsumption, service.validateConsumption, request, administrator)
    expect(decision.allowed).toBe(false)
    expect(decision.violations.map((violation) => violation.policyId)).toEqual([
      'builtin/consumer-status',
      'builtin/service-status',
    ])
  })

  it('is about the caller’s own consumer when it names none', async () => {
    const caller = keyOf({ id: 'none', organizationId: 'o' })
    const decision = await invoke(validateConsumption, service.validateConsumption, { serviceId: 'chat' }, caller)
    expect(decision.allowed).toBe(false)
  })

  it.each([
    ['an unknown consumer', { consumerId: 'x', serviceId: 'chat' }, 'CONSUMER_NOT_FOUND'],
    ['an unknown service', { consumerId: 'one', serviceId: 'x' }, 'SERVICE_NOT_FOUND'],
    ['no consumer', { serviceId: 'chat' }, 'INVALID_ARGUMENT'],
  ])('refuses %s', async (_, request, reason) => {
    const answer = invoke(validateConsumption, service.validateConsumption, request, administrator)
    await expect(answer).rejects.toMatchObject({ reason })
  })
})
