import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ServiceSchema, ServiceStatus } from '../../gen/marketplace/v1/registry_pb.ts'
import type { ChangeType } from '../control/change-types.ts'
import { resourceJson } from '../control/resource-json.ts'
import type { DomainEvent } from './domain-event.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { createRegistrySink } from './registry-sink.ts'

interface Received {
  readonly path: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly body: unknown
}

let server: Server
let sink: OutboxSink
let received: Received[]
let status: number
const forever = new AbortController().signal

beforeEach(async () => {
  received = []
  status = 201
  server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    received.push({ path: request.url, headers: request.headers, body: JSON.parse(body) })
    response.writeHead(status, { 'content-type': 'application/json' }).end('{"id":"their-id"}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  sink = createRegistrySink({ url: `http://127.0.0.1:${port}/llm/`, apiKey: 'the-key' })
})

afterEach(async () => {
  await sink.close()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

function event(type: ChangeType): DomainEvent {
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

test('a service is registered as reference 004 does it, without telling where its endpoints are', async () => {
  expect(await sink.deliver([event('service.registered')], forever)).toEqual(['delivered'])
  expect(received).toMatchObject([{ path: '/llm/api/v1/services', headers: { 'x-api-key': 'the-key' } }])
  expect(received[0]?.body).toEqual({
    name: 'gpt-small',
    version: '1.0.0',
    provider_id: 'o',
    capabilities: [
      { name: 'streaming', value: true },
      { name: 'contextWindowTokens', value: '8000' },
    ],
    metadata: {
      source: '/here',
      service_id: 's',
      description: 'Answers.',
      status: 'SERVICE_STATUS_ACTIVE',
      category: '',
      tags: ['small'],
      documentation_url: '',
    },
  })
})

test('what is no registration is not told', async () => {
  const others = (['service.updated', 'price.created', 'key.created'] as const).map(event)
  expect(await sink.deliver(others, forever)).toEqual(['delivered', 'delivered', 'delivered'])
  expect(received).toEqual([])
})

test.each([
  [409, 'delivered'],
  [503, { reason: 'HTTP 503', isFinal: false, retryAfterMs: undefined }],
  [401, { reason: 'HTTP 401', isFinal: false, retryAfterMs: undefined }],
  [422, { reason: 'HTTP 422', isFinal: true, retryAfterMs: undefined }],
])('HTTP %d', async (answer, delivery) => {
  status = answer
  expect(await sink.deliver([event('service.registered')], forever)).toEqual([delivery])
})
