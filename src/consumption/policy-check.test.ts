import { expect, test } from 'vitest'
import { testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { consumerRecord, endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { allowed, type Decision } from '../policy/decision.ts'
import type { PolicyEngine } from '../policy/policy-engine.ts'
import type { GateRequest } from './gate.ts'
import { readAsked } from './plan.ts'
import { checkPolicy } from './policy-check.ts'

const parties = { consumer: consumerRecord(), service: serviceRecord({ endpoints: [endpointRecord()] }) }
const sent: GateRequest = {
  consumerId: '',
  serviceId: '',
  payload: chat('my card is 4111 1111 1111 1111'),
  parsed: { object: { messages: [{ role: 'user', content: 'my card is 4111 1111 1111 1111' }] }, isWhole: true },
  metadata: {},
  idempotencyKey: '',
  dialect: 'native',
}
const found = {
  policyId: 'p',
  policyName: 'p',
  policyVersion: 1,
  severity: 'warning',
  message: '',
  outcome: 'redacted',
} as const

function check(decision: Decision) {
  const policy: PolicyEngine = {
    checkAccess: () => decision,
    validateConsumption: () => decision,
    verifyDataResidency: () => decision,
    validateService: () => decision,
  }
  const options = { policy, observer: { policyDecided: () => {} }, now: Date.now }
  return checkPolicy(options, sent, 'unary', testCall(), parties)
}

test('what a policy took out of a payload is not in what the wire parsed of it either', async () => {
  const redacted = chat('my card is [card]')
  const { request } = await check({ ...allowed, violations: [found], payload: redacted })
  expect(request.payload).toBe(redacted)
  expect(JSON.stringify(readAsked(request, 'unary', parties.service, 0))).not.toContain('4111')
  expect(JSON.stringify(request)).not.toContain('4111')
})

test('a request that policies leave alone is read as the wire parsed it', async () => {
  const { request } = await check(allowed)
  expect(request.parsed).toBe(sent.parsed)
})
