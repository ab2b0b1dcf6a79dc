import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import { expect, test } from 'vitest'
import { DataClassification } from '../../gen/marketplace/v1/classification_pb.ts'
import {
  DisconnectPolicy,
  Endpoint_Auth,
  Fallback_Condition,
  RevocationPolicy,
  Routing,
  type Service,
  ServiceSchema,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { Modality } from '../../gen/marketplace/v1/service_profile_pb.ts'
import { changedServiceRecord, newServiceRecord, serviceMessage } from './service-message.ts'
import { emptyProfile } from './service-profile.ts'

const organizationId = '0193d6a0-0000-7000-8000-000000000001'

/** Every field that an owner may state. */
const full: Exclude<MessageInitShape<typeof ServiceSchema>, Service> = {
  name: 'gpt-small',
  version: '1.0.0',
  description: 'Answers.',
  endpoints: [
    {
      url: 'https://a.example',
      weight: 2,
      priority: 1,
      auth: Endpoint_Auth.BEARER,
      idleTimeout: { seconds: 3n },
      healthCheck: {
        probe: { case: 'grpcService' as const, value: 'chat' },
        interval: { seconds: 5n },
        timeout: { seconds: 1n },
        healthyThreshold: 1,
        unhealthyThreshold: 4,
      },
    },
  ],
  defaultMaxOutputTokens: 7n,
  routing: Routing.LEAST_LATENCY,
  onDisconnect: DisconnectPolicy.DRAIN,
  onRevoke: RevocationPolicy.CANCEL,
  drainLimit: { seconds: 2n },
  refusesStreamOptions: true,
  fallbacks: [{ serviceId: 'b', on: [Fallback_Condition.BUSY] }],
  responseCache: { ttl: { seconds: 60n }, sharing: 3 },
  category: 'text-generation',
  tags: ['fast', 'cheap'],
  labels: { team: 'a' },
  owner: { organizationId, contact: 'a@example.com' },
  documentationUrl: 'https://docs.example/gpt-small',
  serviceLevel: { latencyP95: { seconds: 1n }, latencyP99: { seconds: 2n }, maxErrorRate: 0, minUptime: 0.999 },
  capabilities: {
    streaming: true,
    tools: true,
    vision: true,
    embeddings: true,
    contextWindowTokens: 128_000n,
    maxOutputTokens: 4_096n,
    inputModalities: [Modality.TEXT, Modality.IMAGE],
    outputModalities: [Modality.TEXT],
  },
  compliance: {
    dataClassification: DataClassification.CONFIDENTIAL,
    certifications: ['iso27001'],
    regions: ['eu-west-1'],
    retentionDays: 0,
  },
}

/** As it comes over a wire. */
function sent(init: MessageInitShape<typeof ServiceSchema>): Service {
  return fromBinary(ServiceSchema, toBinary(ServiceSchema, create(ServiceSchema, init)))
}

let ids = 0
const newId = (): string => `id-${++ids}`

test('whatever is stated is shown as it was stated', () => {
  const shown = serviceMessage(newServiceRecord(sent(full), newId, 5), 5)
  expect(shown).toMatchObject(full)
  expect(shown).toMatchObject({ etag: 'r1', status: ServiceStatus.ACTIVE, statusReason: '' })
})

test.each([
  ['all of it', full],
  ['nothing but what must be', { name: 'n', version: '1.0.0', endpoints: [{ url: 'https://a.example' }] }],
])('a service is the same after it was shown and sent back: %s', (_, init) => {
  const record = newServiceRecord(sent(init), newId, 5)
  expect(changedServiceRecord(record, sent(serviceMessage(record, 5)), newId)).toEqual(record)
})

test('what is shown passes the rules of what is stated', () => {
  const shown = sent(serviceMessage(newServiceRecord(sent(full), newId, 5), 5))
  expect(createValidator().validate(ServiceSchema, shown).kind).toBe('valid')
})

test('what is not stated is not shown', () => {
  const record = newServiceRecord(
    sent({ name: 'n', version: '1.0.0', endpoints: [{ url: 'https://a.example' }] }),
    newId,
    5,
  )
  expect(record.profile).toEqual(emptyProfile)
  const { owner, serviceLevel, capabilities, compliance, deprecation } = create(
    ServiceSchema,
    serviceMessage(record, 5),
  )
  expect({ owner, serviceLevel, capabilities, compliance, deprecation }).toEqual({})
})

test.each([ServiceStatus.DEPRECATED, ServiceStatus.SUSPENDED, ServiceStatus.RETIRED])(
  'no life begins with status %s',
  (status) => {
    expect(() => newServiceRecord(sent({ ...full, status }), newId, 5)).toThrow(
      expect.objectContaining({
        reason: 'INVALID_ARGUMENT',
        fields: [expect.objectContaining({ field: 'service.status' })],
      }),
    )
  },
)
