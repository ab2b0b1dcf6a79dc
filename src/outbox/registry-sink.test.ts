import { afterEach, beforeEach, expect, test } from 'vitest'
import { ServiceSchema, ServiceStatus } from '../../gen/marketplace/v1/registry_pb.ts'
import { answering, type MadeRegistry, startMadeRegistry } from '../../test/support/made-registry.ts'
import type { ChangeType } from '../control/change-types.ts'
import { resourceJson } from '../control/resource-json.ts'
import type { DomainEvent } from './domain-event.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { createRegistrySink } from './registry-sink.ts'

const forever = new AbortController().signal
let registry: MadeRegistry
let sink: OutboxSink

beforeEach(async () => {
  registry = await startMadeRegistry()
  sink = createRegistrySink({ url: `${registry.url}/llm`, apiKey: 'the-key', gateUrl: undefined })
})

afterEach(async () => {
  await sink.close()
  await registry.close()
})

interface Changes {
  readonly description?: string
  readonly status?: ServiceStatus
  readonly etag?: string
  readonly origin?: { readonly registry: string }
}

function event(type: ChangeType, changes: Changes = {}): DomainEvent {
  const resource = resourceJson(ServiceSchema, {
    id: 's',
    name: 'gpt-small',
    version: '1.0.0',
    description: 'Answers.',
    status: ServiceStatus.ACTIVE,
    endpoints: [{ url: 'https://inside.example/v1', credentialRef: 'env:KEY' }],
    owner: { organizationId: 'o' },
    capabilities: { streaming: true, contextWindowTokens: 8_000n },
    tags: ['small'],
    etag: 'r1',
    ...changes,
  })
  return {
    specversion: '1.0',
    id: 'e',
    source: '/here',
    type: `tollgate.${type}`,
    subject: 'service/s',
    time: '',
    partitionkey: 'service/s',
    sequence: '1',
    datacontenttype: 'application/json',
    data: { position: 1, actor: 'a', requestId: '', resource },
  }
}

const sent = () => registry.asked.map(({ method, path }) => `${method} ${path}`)

test('a service is registered as reference 004 does it, without telling where its endpoints are', async () => {
  expect(await sink.deliver([event('service.registered')], forever)).toEqual(['delivered'])
  expect(registry.asked).toMatchObject([{ method: 'POST', path: '/llm/api/v1/services', apiKey: 'the-key' }])
  expect(registry.asked[0]?.body).toEqual({
    name: 'gpt-small',
    version: '1.0.0',
    provider_id: 'o',
    capabilities: [
      { name: 'streaming', value: true },
      { name: 'context_window_tokens', value: '8000' },
    ],
    metadata: {
      source: '/here',
      service_id: 's',
      revision: 'r1',
      description: 'Answers.',
      status: 'SERVICE_STATUS_ACTIVE',
      category: '',
      tags: ['small'],
      documentation_url: '',
    },
  })
})

test('what becomes of it replaces what is there', async () => {
  const retired = { status: ServiceStatus.RETIRED, etag: 'r3' }
  const events = [
    event('service.registered'),
    event('service.updated', { description: 'Other.', etag: 'r2' }),
    event('service.retired', retired),
  ]
  expect(await sink.deliver(events, forever)).toEqual(['delivered', 'delivered', 'delivered'])
  expect(registry.entries).toMatchObject([{ metadata: { status: 'SERVICE_STATUS_RETIRED', revision: 'r3' } }])
  expect(sent()).toEqual([
    'POST /llm/api/v1/services',
    'GET /llm/api/v1/services',
    'PUT /llm/api/v1/services/made-1',
    'GET /llm/api/v1/services',
    'PUT /llm/api/v1/services/made-1',
  ])
})

test('a registry that forgot it is told again, but not of what is retired', async () => {
  await sink.deliver([event('service.updated')], forever)
  expect(registry.entries).toHaveLength(1)
  registry.entries = []
  expect(await sink.deliver([event('service.retired', { status: ServiceStatus.RETIRED })], forever)).toEqual([
    'delivered',
  ])
  expect(registry.entries).toEqual([])
})

test('what another installation registered is left alone', async () => {
  const entry = { id: 'x', name: 'gpt-small', version: '1.0.0', metadata: { source: '/there', service_id: 't' } }
  registry.entries = [entry]
  const events = [event('service.registered'), event('service.updated')]
  expect(await sink.deliver(events, forever)).toEqual(['delivered', 'delivered'])
  expect(registry.entries).toEqual([entry])
})

test('a registry that has the route of reference 004 alone is told of registrations', async () => {
  registry.setMood((asked, response) => asked.method !== 'POST' && answering(404)(asked, response))
  const events = [event('service.registered'), event('service.updated'), event('service.registered')]
  expect(await sink.deliver(events, forever)).toEqual(['delivered', 'delivered', 'delivered'])
  expect(registry.entries).toHaveLength(1)
})

test('what is no change of a service of our own is not told', async () => {
  const others = (['service.documented', 'price.created', 'key.created'] as const).map((type) => event(type))
  const theirs = event('service.registered', { origin: { registry: 'https://registry.example' } })
  expect(await sink.deliver([...others, theirs], forever)).toEqual(Array.from({ length: 4 }, () => 'delivered'))
  expect(registry.asked).toEqual([])
})

test.each([
  [503, { reason: 'HTTP 503', isFinal: false }],
  [401, { reason: 'it refuses REGISTRY_API_KEY (HTTP 401)', isFinal: false }],
  [422, { reason: 'HTTP 422', isFinal: true }],
])('HTTP %d', async (status, delivery) => {
  registry.setMood(answering(status))
  expect(await sink.deliver([event('service.registered')], forever)).toMatchObject([delivery])
})
