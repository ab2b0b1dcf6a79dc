import { beforeEach, describe, expect, test } from 'vitest'
import { keyOf, testCall } from '../../test/support/invoke.ts'
import { consumerRecord, endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import type { TollgateError } from '../errors.ts'
import { keyScopes, type ScopeLists } from '../identity/key-scopes.ts'
import { newId } from '../ids.ts'
import type { Admission, Limits } from '../limits/limits.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { createEntrance } from './entrance.ts'
import type { GateRequest } from './gate.ts'
import { createResponseCache } from './response-cache.ts'

const consumer = consumerRecord({ id: 'c1', organizationId: 'o1', grantedServices: new Set(['*']) })
const services = [
  serviceRecord({ id: 'id-chat-1', name: 'chat', version: '1.0.0', endpoints: [endpointRecord()] }),
  serviceRecord({ id: 'id-chat-2', name: 'chat', version: '2.0.0', endpoints: [endpointRecord()] }),
  serviceRecord({ id: 'id-other', name: 'other', endpoints: [endpointRecord()] }),
]
let admitted: Admission[] = []
let refusals: TollgateError[] = []
beforeEach(() => {
  admitted = []
  refusals = []
})

/** What a call asks for. */
interface Asked {
  readonly service: string
  readonly model?: string
  readonly dialect?: GateRequest['dialect']
}

/** Lets a call of a key with these scopes enter; nothing is taken, for the limits here only note it. */
async function enter(scopes: Partial<ScopeLists>, { service, model, dialect = 'native' }: Asked): Promise<void> {
  const limits: Pick<Limits, 'admit'> = {
    async admit(admission) {
      admitted.push(admission)
      return { outcome: 'admitted', limits: admission.costs.map(() => ({ remaining: 1, resetAtMs: 0 })) }
    },
  }
  const entrance = createEntrance({
    snapshots: { current: () => buildSnapshot({ version: 1, nowMs: 0, services, consumers: [consumer] }) },
    policy: undefined,
    limits,
    cache: createResponseCache(0, Date.now),
    rateLimiting: true,
    observer: { refused: ({ error }) => void refusals.push(error), cacheAsked: () => {}, policyDecided: () => {} },
    now: Date.now,
    newId,
  })
  const payload = Buffer.from(JSON.stringify({ messages: [], ...(model !== undefined && { model }) }))
  const plain = { consumerId: 'c1', serviceId: service, payload, metadata: {}, idempotencyKey: '', dialect }
  const lists = { services: [], permissions: [], models: [], ...scopes }
  const principal = { ...keyOf(consumer), scopes: keyScopes(lists) }
  await entrance.enter({ request: plain, takenOver: undefined }, 'unary', testCall(principal))
}

describe('a key that is narrowed', () => {
  test.each<[string, Partial<ScopeLists>, Asked]>([
    ['to nothing', {}, { service: 'other', model: 'm' }],
    ['to the service by name', { services: ['chat'] }, { service: 'id-chat-1' }],
    ['to the service by id', { services: ['id-chat-2'] }, { service: 'chat' }],
    ['to the model', { models: ['m'] }, { service: 'chat', model: 'm' }],
    ['to the service as a model, by a payload that names none', { models: ['chat'] }, { service: 'chat' }],
    ['to the model of the OpenAI API', { models: ['chat'] }, { service: 'id-chat-2', model: 'm', dialect: 'openai' }],
  ])('%s, may call', async (_, scopes, asked) => {
    await enter(scopes, asked)
    expect(admitted).toHaveLength(1)
  })

  test.each<[string, Partial<ScopeLists>, Asked, Record<string, string>]>([
    ['another service', { services: ['chat'] }, { service: 'other' }, { scope: 'services', item: 'other' }],
    ['another version', { services: ['id-chat-1'] }, { service: 'chat' }, { scope: 'services', item: 'chat' }],
    ['another model', { models: ['m'] }, { service: 'chat', model: 'n' }, { scope: 'models', item: 'n' }],
    ['a service in place of a model', { models: ['m'] }, { service: 'chat' }, { scope: 'models', item: 'chat' }],
    [
      'a model by the name that the OpenAI API gives to none',
      { models: ['m'] },
      { service: 'chat', model: 'm', dialect: 'openai' },
      { scope: 'models', item: 'chat' },
    ],
  ])('may not call %s: nothing is taken, and the observer is told', async (_, scopes, asked, metadata) => {
    await expect(enter(scopes, asked)).rejects.toMatchObject({
      reason: 'KEY_SCOPE_MISSING',
      metadata: { keyId: 'testkey', ...metadata },
    })
    expect(admitted).toEqual([])
    expect(refusals).toHaveLength(1)
  })
})
