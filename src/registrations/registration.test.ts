import { create } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import {
  Endpoint_Protocol as Protocol,
  type Service,
  ServiceSchema,
  ServiceStatus as Status,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { Modality } from '../../gen/marketplace/v1/service_profile_pb.ts'
import { TollgateError } from '../errors.ts'
import { compileFieldRules } from '../field-rules.ts'
import type { ServiceFields } from '../registry/service-message.ts'
import { listedPage } from './listed-entry.ts'
import { type RegistrationJson, readRegistration } from './read-registration.ts'
import { registrationOf } from './registration.ts'
import { noteLabels } from './registration-notes.ts'

const rules = compileFieldRules([ServiceSchema])
const teller = { source: '/here', gateUrl: undefined, tellsEndpoints: true }

const service = (changes: ServiceFields = {}): Service =>
  create(ServiceSchema, {
    id: 'the-id',
    name: 'gpt-small',
    version: '1.0.0',
    description: 'Answers.',
    status: Status.DEPRECATED,
    deprecation: { message: 'old', successor: 'gpt-large', sunsetTime: { seconds: 1_900_000_000n } },
    endpoints: [{ id: 'e', url: 'https://llm.example/v1', credentialRef: 'env:KEY', weight: 2, priority: 1 }],
    pricing: { currency: 'EUR', version: 'v3', model: { case: 'perRequest', value: { requestNanos: 7n } } },
    owner: { organizationId: 'o', contact: 'team@example' },
    category: 'text-generation',
    tags: ['small'],
    labels: { team: 'red' },
    documentationUrl: 'https://docs.example/',
    serviceLevel: { minUptime: 0.99, latencyP95: { seconds: 2n } },
    capabilities: { streaming: true, contextWindowTokens: 8_000n, inputModalities: [Modality.TEXT] },
    compliance: { regions: ['eu'], retentionDays: 0 },
    refusesStreamOptions: true,
    etag: 'r4',
    ...changes,
  })

/** As it travels: text, parsed by somebody else. */
function travelled(told: object): RegistrationJson {
  const text = JSON.stringify([{ id: 'theirs', ...told }])
  const entry = listedPage(JSON.parse(text))?.entries[0]
  if (entry === undefined) throw new Error('it was not read')
  return entry
}

describe('a service', () => {
  test('comes out of its registration as it went in, but for what is the gate’s own', () => {
    const read = readRegistration(travelled(registrationOf(service(), teller)), rules)
    expect(read.service).toMatchObject({
      name: 'gpt-small',
      version: '1.0.0',
      description: 'Answers.',
      endpoints: [{ id: '', url: 'https://llm.example/v1', credentialRef: '', weight: 2, priority: 1 }],
      pricing: { currency: 'EUR', model: { case: 'perRequest', value: { requestNanos: 7n } } },
      owner: { organizationId: '', contact: 'team@example' },
      category: 'text-generation',
      tags: ['small'],
      labels: { team: 'red' },
      documentationUrl: 'https://docs.example/',
      serviceLevel: { minUptime: 0.99, latencyP95: { seconds: 2n } },
      capabilities: { streaming: true, contextWindowTokens: 8_000n, inputModalities: [Modality.TEXT] },
      compliance: { regions: ['eu'], retentionDays: 0 },
      refusesStreamOptions: true,
    })
    expect(read.life).toEqual({
      status: 'deprecated',
      reason: '',
      deprecation: { sunsetAtMs: 1_900_000_000_000, message: 'old', successor: 'gpt-large' },
    })
    expect(read).toMatchObject({ source: '/here', serviceId: 'the-id', revision: 'r4/v3', isSecondHand: false })
  })

  test('is told without endpoints, or with the gate in their place, and never with what opens them', () => {
    const hidden = registrationOf(service(), { ...teller, tellsEndpoints: false })
    expect(JSON.stringify(hidden)).not.toContain('llm.example')
    const gate = registrationOf(service(), { source: '/here', gateUrl: 'https://gate.example', tellsEndpoints: false })
    expect(gate.metadata.endpoints).toEqual([
      { url: 'https://gate.example', protocol: 'PROTOCOL_GRPC', model: 'the-id' },
    ])
    expect(JSON.stringify(registrationOf(service(), teller))).not.toContain('env:KEY')
  })

  test('says who registered it, where that was somebody else', () => {
    const notes = { providerId: 'team-9', source: '/there', serviceId: 'x', revision: 'r9', status: 'active' } as const
    const labels = noteLabels.with({ team: 'red' }, notes)
    const told = registrationOf(service({ labels }), teller)
    expect(told.provider_id).toBe('team-9')
    expect(told.metadata).toMatchObject({ source: '/there', service_id: 'x', revision: 'r9', labels: { team: 'red' } })
  })

  test('that a registry has from another one is second hand', () => {
    const origin = { registry: 'https://third.example', serviceId: 'y', providerId: 'p' }
    const told = registrationOf(service({ origin }), teller)
    expect(readRegistration(travelled(told), rules).isSecondHand).toBe(true)
    expect(told.provider_id).toBe('p')
  })
})

describe('a registration of somebody else', () => {
  const json = (metadata: RegistrationJson['metadata'], capabilities: RegistrationJson['capabilities'] = []) => ({
    name: 'gpt-small',
    version: '1.0.0',
    capabilities,
    metadata: { endpoint: 'https://llm.example/v1', ...metadata },
  })

  test('may say little, in the words of reference 004, and what nobody here knows', () => {
    const capabilities = [
      { name: 'streaming', value: true },
      { name: 'poetry', value: 'good' },
    ]
    const read = readRegistration(
      json({ status: 'suspended', suspension_reason: 'x', price: 'a lot' }, capabilities),
      rules,
    )
    expect(read.service).toMatchObject({
      endpoints: [{ url: 'https://llm.example/v1', protocol: Protocol.UNSPECIFIED }],
      capabilities: { streaming: true },
      status: Status.ACTIVE,
    })
    expect(read.life.status).toBe('suspended')
    expect(read.life.reason).not.toBe('')
  })

  test.each<[what: string, json: RegistrationJson, field: string]>([
    ['a name that nobody can call', { ...json({}), name: 'GPT Small' }, 'name'],
    ['a version that is none', { ...json({}), version: 'latest' }, 'version'],
    ['no endpoint', json({ endpoint: null }), 'metadata.endpoints'],
    ['an endpoint that is no URL', json({ endpoint: 'llm.example' }), 'metadata.endpoints[0].url'],
    ['tags that are none', json({ tags: 'small' }), 'metadata.tags'],
    ['a status that is none', json({ status: 'fine' }), 'metadata.status'],
    [
      'a capability of another kind',
      json({}, [{ name: 'context_window_tokens', value: 'many' }]),
      'capabilities.context_window_tokens',
    ],
  ])('with %s is refused by the name of the field', (_, registration, field) => {
    let refused: unknown
    try {
      readRegistration(registration, rules)
    } catch (error) {
      refused = error
    }
    expect(refused).toBeInstanceOf(TollgateError)
    expect(refused).toMatchObject({ reason: 'INVALID_ARGUMENT', fields: [{ field }] })
  })

  test('without endpoints leaves the known ones', () => {
    const known = service().endpoints
    expect(readRegistration(json({ endpoint: null }), rules, known).service.endpoints).toEqual(known)
  })
})
