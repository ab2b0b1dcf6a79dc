import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  DisconnectPolicy,
  Endpoint_Auth,
  Endpoint_Protocol,
  Fallback_Condition,
  Registry,
  ResponseCache_Sharing,
  Routing,
  ServiceStatus,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { startRegistry, type TestRegistry } from './registry-support.ts'
import { findService } from './snapshot.ts'

const { getService, listServices } = Registry.method

let registry: TestRegistry
beforeAll(async () => {
  registry = await startRegistry()
}, 60_000)
afterAll(() => registry?.close())

let names = 0
function aService(name = `service-${++names}`, version = '1.0.0') {
  return {
    name,
    version,
    description: 'Answers.',
    endpoints: [
      { url: 'http://127.0.0.1:9/v1/chat', protocol: Endpoint_Protocol.OPENAI, credentialRef: 'env:TOKEN' },
      { url: 'http://127.0.0.1:9/v2/chat', timeout: { seconds: 2n, nanos: 500_000_000 } },
    ],
  }
}

describe('RegisterService', () => {
  it('answers with ids, defaults and the price’s version; the snapshot holds it at once', async () => {
    const { name } = aService()
    const pricing = {
      currency: 'EUR',
      model: {
        case: 'perToken' as const,
        value: { inputNanosPerMillion: 3n, outputNanosPerMillion: 10n ** 15n, cachedInputNanosPerMillion: 0n },
      },
    }
    const service = await registry.register({ ...aService(name), pricing })
    expect(service).toMatchObject({ name, status: ServiceStatus.ACTIVE, defaultMaxOutputTokens: 1024n })
    expect(service.pricing?.version).toBe('v1')
    expect(service.endpoints.map((endpoint) => endpoint.timeout?.nanos)).toEqual([undefined, 500_000_000])
    expect(new Set([service.id, ...service.endpoints.map((endpoint) => endpoint.id)]).size).toBe(3)

    const record = findService(registry.snapshots.current(), name)
    expect(record).toMatchObject({
      id: service.id,
      status: 'active',
      endpoints: [
        { protocol: 'openai', credentialRef: 'env:TOKEN', timeoutMs: undefined, weight: 1, priority: 0 },
        { protocol: 'openai', credentialRef: '', timeoutMs: 2_500 },
      ],
      price: {
        version: 'v1',
        currency: 'EUR',
        model: {
          kind: 'per_token',
          inputNanosPerMillion: 3,
          outputNanosPerMillion: 10 ** 15,
          cachedInputNanosPerMillion: 0,
          cacheWriteInputNanosPerMillion: 3,
          reasoningOutputNanosPerMillion: 10 ** 15,
        },
      },
    })
    expect(record).toBe(registry.snapshots.current().servicesById.get(service.id))
    for (const id of [service.id, name]) {
      expect(await invoke(getService, registry.handlers.getService, { id }, administrator)).toEqual(service)
    }
  })

  it('keeps how calls are routed, each deadline by itself, and what becomes of calls without a caller', async () => {
    const ms = (value: number) => ({ seconds: 0n, nanos: value * 1_000_000 })
    const endpoint = {
      url: 'http://127.0.0.1:9/v1/chat',
      weight: 7,
      priority: 2,
      connectTimeout: ms(10),
      headersTimeout: ms(20),
      firstTokenTimeout: ms(30),
      idleTimeout: ms(40),
      timeout: ms(50),
    }
    const { ERROR, BUSY, TIMEOUT, CONTENT_FILTER } = Fallback_Condition
    const filtered = { serviceId: 'b', on: [CONTENT_FILTER] }
    const wanted = {
      routing: Routing.LEAST_LATENCY,
      onDisconnect: DisconnectPolicy.DRAIN,
      drainLimit: ms(60),
      responseCache: { ttl: ms(70), sharing: ResponseCache_Sharing.CONSUMER },
    }
    const fallbacks = [{ serviceId: 'a' }, filtered]
    const service = await registry.register({ ...aService(), ...wanted, fallbacks, endpoints: [endpoint] })
    const shown = [{ serviceId: 'a', on: [ERROR, BUSY, TIMEOUT] }, filtered]
    expect(service).toMatchObject({ ...wanted, fallbacks: shown, endpoints: [endpoint] })
    expect(registry.snapshots.current().servicesById.get(service.id)).toMatchObject({
      routing: 'least_latency',
      onDisconnect: 'drain',
      drainLimitMs: 60,
      responseCache: { ttlMs: 70, sharing: 'consumer' },
      fallbacks: [
        { serviceId: 'a', on: ['error', 'busy', 'timeout'] },
        { serviceId: 'b', on: ['content_filter'] },
      ],
      endpoints: [
        {
          weight: 7,
          priority: 2,
          connectTimeoutMs: 10,
          headersTimeoutMs: 20,
          firstTokenTimeoutMs: 30,
          idleTimeoutMs: 40,
          timeoutMs: 50,
        },
      ],
    })
    expect(await invoke(getService, registry.handlers.getService, { id: service.id }, administrator)).toEqual(service)

    const plain = await registry.register(aService())
    expect(plain).toMatchObject({ routing: Routing.WEIGHTED, onDisconnect: DisconnectPolicy.CANCEL })
    expect(plain.endpoints.map(({ weight, priority }) => [weight, priority])).toEqual([
      [1, 0],
      [1, 0],
    ])
  })

  it('keeps the protocol, and what its backends must be told in it', async () => {
    const endpoint = {
      url: 'https://models.example',
      protocol: Endpoint_Protocol.GEMINI,
      auth: Endpoint_Auth.BEARER,
      model: 'models/gemini',
    }
    const gemini = await registry.register({ ...aService(), endpoints: [endpoint] })
    expect(gemini).toMatchObject({ endpoints: [endpoint] })
    expect(registry.snapshots.current().servicesById.get(gemini.id)).toMatchObject({
      refusesStreamOptions: false,
      jsonPointers: {},
      endpoints: [{ protocol: 'gemini', auth: 'bearer', model: 'models/gemini' }],
    })
    expect(await invoke(getService, registry.handlers.getService, { id: gemini.id }, administrator)).toEqual(gemini)

    const jsonPointers = { inputTokens: '/usage/in', answerModel: '/model' }
    const plain = { ...aService(), endpoints: [{ url: 'https://a.example', protocol: Endpoint_Protocol.JSON }] }
    const json = await registry.register({ ...plain, jsonPointers })
    expect(json).toMatchObject({ jsonPointers })
    expect(registry.snapshots.current().servicesById.get(json.id)).toMatchObject({ jsonPointers })
    expect(await invoke(getService, registry.handlers.getService, { id: json.id }, administrator)).toEqual(json)

    const reserved = await registry.register({ ...aService(), refusesStreamOptions: true })
    expect(reserved).toMatchObject({ refusesStreamOptions: true })
    expect(registry.snapshots.current().servicesById.get(reserved.id)?.refusesStreamOptions).toBe(true)
  })

  it('knows every protocol and every way to show a credential, and gives them back', async () => {
    const stated = (values: object) => Object.values(values).filter((value) => typeof value === 'number' && value > 0)
    for (const protocol of stated(Endpoint_Protocol)) {
      const model = protocol === Endpoint_Protocol.GRPC ? 'upstream' : ''
      const { endpoints } = await registry.register({
        ...aService(),
        endpoints: [{ url: 'https://a.example', protocol, model }],
      })
      expect(endpoints).toMatchObject([{ protocol }])
    }
    for (const auth of stated(Endpoint_Auth)) {
      const { endpoints } = await registry.register({ ...aService(), endpoints: [{ url: 'https://a.example', auth }] })
      expect(endpoints).toMatchObject([{ auth }])
    }
  })

  it('keeps a price per request, and a service without a price', async () => {
    const value = { requestNanos: 7n }
    const pricing = { currency: 'USD', model: { case: 'perRequest' as const, value } }
    const fixed = await registry.register({ ...aService(), pricing })
    expect(fixed.pricing?.model).toMatchObject({ case: 'perRequest', value })
    expect(registry.snapshots.current().servicesById.get(fixed.id)?.price?.model).toEqual({
      kind: 'per_request',
      requestNanos: 7,
    })
    const unpriced = await registry.register(aService())
    expect(unpriced.pricing).toBeUndefined()
    expect(registry.snapshots.current().servicesById.get(unpriced.id)?.price).toBeUndefined()
  })

  it('refuses a name and version that exist, and leaves nothing of the attempt', async () => {
    const { name } = await registry.register(aService())
    const [before] = await registry.server.sql`select count(*)::int as n from endpoints`
    await expect(registry.register(aService(name))).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
      fields: [{ field: 'service.version' }],
    })
    expect((await registry.server.sql`select count(*)::int as n from endpoints`)[0]).toEqual(before)
    const next = await registry.register(aService(name, '1.1.0'))
    expect((await invoke(getService, registry.handlers.getService, { id: name }, administrator)).id).toBe(next.id)
  })

  it('refuses a price without a model', async () => {
    const service = { ...aService(), pricing: { currency: 'EUR' } }
    await expect(registry.register(service)).rejects.toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'service.pricing.model' }],
    })
  })
})

describe('GetService and ListServices', () => {
  it('answer SERVICE_NOT_FOUND for what does not exist', async () => {
    await expect(
      invoke(getService, registry.handlers.getService, { id: 'nobody' }, administrator),
    ).rejects.toMatchObject({
      reason: 'SERVICE_NOT_FOUND',
      metadata: { serviceId: 'nobody' },
    })
  })

  it('list every service once, in the order of ids, page by page', async () => {
    for (let i = 0; i < 3; i++) await registry.register(aService())
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await invoke(listServices, registry.handlers.listServices, { pageSize: 2, pageToken }, administrator)
      expect(page.services.length).toBeLessThanOrEqual(2)
      seen.push(...page.services.map((service) => service.id))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    const rows = await registry.server.sql<{ id: string }[]>`select id from services order by id`
    expect(seen).toEqual(rows.map((row) => row.id))
  })
})
