import { describe, expect, it, test } from 'vitest'
import { testCall } from '../../test/support/invoke.ts'
import { consumerRecord, endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { newId } from '../ids.ts'
import type { BackendRequest, Dialect } from '../providers/provider.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import { BackendTask } from './backend-task.ts'
import { planCall } from './plan.ts'

const messages = '"messages":[{"role":"user","content":"hi"}]'

function planOf(service: ServiceRecord, body: string, dialect: Dialect, mode: 'unary' | 'stream' = 'unary') {
  const request = {
    consumerId: '',
    serviceId: service.id,
    payload: Buffer.from(body),
    metadata: {},
    idempotencyKey: '',
    dialect,
  }
  const context = { rules: new Map(), limitsOf: undefined, cache: undefined, newId, nowMs: 0 }
  return planCall(request, mode, testCall(), consumerRecord(), service, context)
}

/** What the only endpoint of a service is sent. */
function sent(endpoint: Partial<EndpointRecord>, body: string, dialect: Dialect): BackendRequest {
  const service = serviceRecord({
    name: 'my-service',
    endpoints: [endpointRecord({ url: 'https://a.test/v1', ...endpoint })],
  })
  const [only] = service.endpoints
  if (only === undefined) throw new Error('the service has no endpoint')
  return new BackendTask(planOf(service, body, dialect)).prepare(only, 'k')
}

function modelIn({ body }: BackendRequest): unknown {
  return JSON.parse(Buffer.from(body).toString()).model
}

describe('The model that a backend is asked for', () => {
  test.each<[what: string, endpoint: Partial<EndpointRecord>, callers: string, dialect: Dialect, expected: string]>([
    ['the endpoint’s, of callers of the OpenAI API', { model: 'm' }, 'my-service', 'openai', 'm'],
    ['the endpoint’s, of callers of its own API', { model: 'm' }, 'theirs', 'native', 'm'],
    ['the endpoint’s, translated', { protocol: 'anthropic', model: 'm' }, 'my-service', 'openai', 'm'],
    ['the service’s name without one', {}, 'my-service', 'openai', 'my-service'],
    ['the service’s name without one, however the caller named it', {}, 'service-1', 'openai', 'my-service'],
    ['the service’s name without one, translated', { protocol: 'anthropic' }, 'service-1', 'openai', 'my-service'],
    ['the caller’s without one, in the backend’s own API', {}, 'theirs', 'native', 'theirs'],
  ])('is %s', (_, endpoint, callers, dialect, expected) => {
    expect(modelIn(sent(endpoint, `{"model":"${callers}",${messages}}`, dialect))).toBe(expected)
  })

  it('stands in the address where the protocol has it there', () => {
    const body = `{"model":"my-service",${messages}}`
    expect(sent({ protocol: 'gemini', model: 'm' }, body, 'openai').url).toBe(
      'https://a.test/v1/models/m:generateContent',
    )
    expect(sent({ protocol: 'gemini' }, body, 'openai').url).toBe('https://a.test/v1/models/my-service:generateContent')
  })

  it('changes no byte when the caller wrote it already', () => {
    const body = `{ "x" : 1e400, "model" : "my-service", ${messages} }`
    expect(Buffer.from(sent({}, body, 'openai').body).toString()).toBe(body)
  })
})

describe('A credential', () => {
  test.each<[auth: EndpointRecord['auth'], protocol: EndpointRecord['protocol'], header: string, value: string]>([
    [undefined, 'openai', 'authorization', 'Bearer k'],
    [undefined, 'azure_openai', 'api-key', 'k'],
    [undefined, 'anthropic', 'x-api-key', 'k'],
    [undefined, 'gemini', 'x-goog-api-key', 'k'],
    ['bearer', 'gemini', 'authorization', 'Bearer k'],
    ['bearer', 'azure_openai', 'authorization', 'Bearer k'],
    ['api-key', 'openai', 'api-key', 'k'],
    ['x-api-key', 'json', 'x-api-key', 'k'],
  ])('of auth %s and protocol %s is shown as %s', (auth, protocol, header, value) => {
    const { headers } = sent(
      { auth, protocol, model: protocol === 'json' ? '' : 'm' },
      `{${messages},"contents":[]}`,
      'native',
    )
    const shown = Object.entries(headers).filter(([, text]) => text.includes('k') && /^(Bearer )?k$/.test(text))
    expect(shown).toEqual([[header, value]])
  })
})

describe('A service', () => {
  it('whose backends refuse stream_options is not asked for usage in streams', () => {
    const service = serviceRecord({ endpoints: [endpointRecord()], refusesStreamOptions: true })
    const body = `{${messages},"stream":true}`
    const plan = planOf(service, body, 'native', 'stream')
    expect(Buffer.from(new BackendTask(plan).prepare(endpointRecord(), undefined).body).toString()).toBe(body)
  })

  it('of plain JSON tells usage where its pointers say', () => {
    const endpoints = [endpointRecord({ protocol: 'json' })]
    const service = serviceRecord({ endpoints, jsonPointers: { inputTokens: '/in', outputTokens: '/out' } })
    const answer = new BackendTask(planOf(service, '{}', 'native')).read(Buffer.from('{"in":3,"out":4}'))
    expect(answer).toMatchObject({ usageSource: 'provider', tokens: { input: 3, output: 4 } })
  })
})
