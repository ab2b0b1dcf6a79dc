import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt'
import { type Client, createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type PricingSchema, Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import { type PostgresServer, silentLog, startPostgresServer } from '../../test/support/postgres-server.ts'
import { refusal } from '../../test/support/refusal.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { writeBatch } from '../metering/ledger.ts'
import { ensurePartitions } from '../metering/month-partitions.ts'
import { chargeFor } from '../pricing/price.ts'
import { as, type Fixture, keys, startFixture, wires } from '../server/fixture.ts'
import { register } from '../server/rpc.ts'
import { priceAt } from './records.ts'
import { createRegistryService } from './registry-service.ts'
import { createSnapshots, type Snapshots } from './snapshots.ts'

type PricingInit = MessageInitShape<typeof PricingSchema>

const admin = as(keys.admin)
const nobody = '00000000-0000-4000-8000-0000000000ff'
let server: PostgresServer
let snapshots: Snapshots
let fixture: Fixture
let registry: Client<typeof Registry>

beforeAll(async () => {
  server = await startPostgresServer()
  await ensurePartitions(server.sql, Date.now())
  snapshots = createSnapshots({ sql: server.sql, log: silentLog, pollMs: 3_600_000 })
  await snapshots.start()
  const service = createRegistryService({ sql: server.sql, snapshots, newId: randomUUID })
  fixture = await startFixture({ services: [register(Registry, service)] })
  registry = createClient(Registry, wires.grpc(fixture.server.address))
}, 60_000)

afterAll(async () => {
  await fixture?.close()
  await snapshots?.close()
  await server?.stop()
})

async function aService(pricing?: PricingInit): Promise<string> {
  const service = { name: `s-${randomUUID()}`, version: '1.0.0', endpoints: [{ url: 'http://127.0.0.1:9/' }] }
  return (await registry.registerService({ service: { ...service, ...(pricing && { pricing }) } }, admin)).id
}

function perRequest(requestNanos: bigint, effectiveMs?: number): PricingInit {
  const effectiveTime = effectiveMs === undefined ? {} : { effectiveTime: timestampFromMs(effectiveMs) }
  return { currency: 'EUR', model: { case: 'perRequest', value: { requestNanos } }, ...effectiveTime }
}

async function databaseNowMs(): Promise<number> {
  const [row] = await server.sql<[{ now: Date }]>`select clock_timestamp() as now`
  return row.now.getTime()
}

const rates = {
  inputNanosPerMillion: 3n,
  outputNanosPerMillion: 15n,
  cachedInputNanosPerMillion: 1n,
  cacheWriteInputNanosPerMillion: 4n,
  reasoningOutputNanosPerMillion: 16n,
}

describe('CreatePrice', () => {
  it('is in force at once, as the next version; the service and the snapshot say so when it answers', async () => {
    const serviceId = await aService(perRequest(1n))
    const before = await databaseNowMs()
    const price = await registry.createPrice({ serviceId, price: perRequest(2n) }, admin)
    expect(price).toMatchObject({ version: 'v2', currency: 'EUR', model: { value: { requestNanos: 2n } } })
    const effectiveMs = price.effectiveTime && timestampMs(price.effectiveTime)
    expect(effectiveMs).toBeGreaterThanOrEqual(before)
    const service = snapshots.current().servicesById.get(serviceId)
    expect(service?.prices.map(({ version }) => version)).toEqual(['v2', 'v1'])
    expect(service && priceAt(service, effectiveMs ?? 0)?.version).toBe('v2')
    expect(service && priceAt(service, (effectiveMs ?? 0) - 1)?.version).toBe('v1')
    await expect.poll(async () => (await registry.getService({ id: serviceId }, admin)).pricing).toEqual(price)
  })

  it('keeps tiers, with the rates of their parts; and a subscription', async () => {
    const serviceId = await aService()
    const tier = { minInputTokens: 200_000n, ...rates, inputNanosPerMillion: 6n }
    const open = { minInputTokens: 500_000n, inputNanosPerMillion: 7n, outputNanosPerMillion: 8n }
    const value = { ...rates, tiers: [tier, open] }
    const price = { currency: 'USD', model: { case: 'perToken' as const, value } }
    const tokens = await registry.createPrice({ serviceId, price }, admin)
    const filled = {
      ...open,
      cachedInputNanosPerMillion: 7n,
      cacheWriteInputNanosPerMillion: 7n,
      reasoningOutputNanosPerMillion: 8n,
    }
    expect(tokens).toMatchObject({
      version: 'v1',
      model: { case: 'perToken', value: { ...rates, tiers: [tier, filled] } },
    })
    expect(snapshots.current().servicesById.get(serviceId)?.prices[0]?.model).toMatchObject({
      kind: 'per_token',
      inputNanosPerMillion: 3,
      tiers: [
        { minInputTokens: 200_000, inputNanosPerMillion: 6, cachedInputNanosPerMillion: 1 },
        { minInputTokens: 500_000, inputNanosPerMillion: 7, cachedInputNanosPerMillion: 7 },
      ],
    })
    const prepaid = { currency: 'USD', model: { case: 'subscription' as const, value: {} } }
    expect(await registry.createPrice({ serviceId, price: prepaid }, admin)).toMatchObject({
      version: 'v2',
      model: { case: 'subscription' },
    })
    expect(snapshots.current().servicesById.get(serviceId)?.prices[0]?.model).toEqual({ kind: 'subscription' })
    expect((await registry.listPrices({ serviceId }, admin)).prices.map(({ model }) => model.case)).toEqual([
      'subscription',
      'perToken',
    ])
  })

  it('waits for its time; of two with the same time the later version holds', async () => {
    const serviceId = await aService(perRequest(1n))
    const fromMs = (await databaseNowMs()) + 86_400_000
    // Ten of them, because "v10" is after "v9".
    for (let i = 2n; i <= 11n; i++) await registry.createPrice({ serviceId, price: perRequest(i, fromMs) }, admin)
    const service = snapshots.current().servicesById.get(serviceId)
    expect(service?.price?.version).toBe('v1')
    expect(service && priceAt(service, fromMs - 1)?.version).toBe('v1')
    expect(service && priceAt(service, fromMs)?.version).toBe('v11')
  })

  it('gives every version once, also to many at a time', async () => {
    const serviceId = await aService()
    const made = await Promise.all(
      Array.from({ length: 8 }, () => registry.createPrice({ serviceId, price: perRequest(1n) }, admin)),
    )
    expect(made.map(({ version }) => version).sort()).toEqual(Array.from({ length: 8 }, (_, i) => `v${i + 1}`))
    const byVersion = made.toSorted((a, b) => a.version.localeCompare(b.version))
    const times = byVersion.map(({ effectiveTime }) => effectiveTime && timestampMs(effectiveTime))
    expect(times).toEqual(times.toSorted((a, b) => Number(a) - Number(b)))
  })

  it('forgives a clock that is a little slow, and is in force from now on all the same', async () => {
    const serviceId = await aService(perRequest(1n))
    const before = await databaseNowMs()
    const price = await registry.createPrice({ serviceId, price: perRequest(2n, before - 2_000) }, admin)
    expect(price.effectiveTime && timestampMs(price.effectiveTime)).toBeGreaterThanOrEqual(before)
  })

  it('is refused in the past, and leaves the prices as they are', async () => {
    const serviceId = await aService(perRequest(1n))
    const price = perRequest(2n, (await databaseNowMs()) - 60_000)
    expect(await refusal(registry.createPrice({ serviceId, price }, admin))).toMatchObject({
      code: 3,
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'price.effective_time' }],
    })
    expect((await registry.listPrices({ serviceId }, admin)).prices).toHaveLength(1)
  })

  it.each<[string, PricingInit, string]>([
    ['without a model', { currency: 'EUR' }, 'price.model'],
    ['without a currency', { model: { case: 'subscription', value: {} } }, 'price.currency'],
    ['with a negative rate', perRequest(-1n), 'price.per_request.request_nanos'],
    [
      'with a tier from nothing on',
      { currency: 'EUR', model: { case: 'perToken', value: { tiers: [{}] } } },
      'price.per_token.tiers[0].min_input_tokens',
    ],
    [
      'with tiers that do not ascend',
      {
        currency: 'EUR',
        model: { case: 'perToken', value: { tiers: [{ minInputTokens: 5n }, { minInputTokens: 5n }] } },
      },
      'price.per_token.tiers[1].min_input_tokens',
    ],
    ['after all time', perRequest(1n, 40_000_000_000_000), 'price.effective_time'],
  ])('is refused %s', async (_, price, field) => {
    const serviceId = await aService()
    expect(await refusal(registry.createPrice({ serviceId, price }, admin))).toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field }],
    })
  })

  it.each([nobody, 'nonsense'])('is SERVICE_NOT_FOUND for %s', async (serviceId) => {
    expect(await refusal(registry.createPrice({ serviceId, price: perRequest(1n) }, admin))).toMatchObject({
      code: 5,
      reason: 'SERVICE_NOT_FOUND',
      metadata: { serviceId },
    })
  })

  it('is not for a consumer’s key', async () => {
    const serviceId = await aService()
    const call = registry.createPrice({ serviceId, price: perRequest(1n) }, as(keys.own))
    expect(await refusal(call)).toMatchObject({
      code: 7,
      reason: 'PERMISSION_MISSING',
      metadata: { permission: 'prices.write' },
    })
  })
})

describe('ListPrices', () => {
  it('shows each once, page by page, the latest first, to a consumer too', async () => {
    const serviceId = await aService(perRequest(1n))
    const now = await databaseNowMs()
    for (const [nanos, days] of [[2n, 3] as const, [3n, 1] as const, [4n, 2] as const, [5n, 2] as const]) {
      await registry.createPrice({ serviceId, price: perRequest(nanos, now + days * 86_400_000) }, admin)
    }
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await registry.listPrices({ serviceId, pageSize: 2, pageToken }, as(keys.own))
      expect(page.prices.length).toBeLessThanOrEqual(2)
      seen.push(...page.prices.map(({ version }) => version))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual(['v2', 'v5', 'v4', 'v3', 'v1'])
  })

  it('is SERVICE_NOT_FOUND for what does not exist, and refuses a token that is none of its own', async () => {
    expect(await refusal(registry.listPrices({ serviceId: nobody }, admin))).toMatchObject({
      reason: 'SERVICE_NOT_FOUND',
    })
    const pageToken = Buffer.from('["v9"]').toString('base64url')
    const serviceId = await aService(perRequest(1n))
    expect(await refusal(registry.listPrices({ serviceId, pageToken }, admin))).toMatchObject({
      reason: 'INVALID_ARGUMENT',
      fields: [{ field: 'page_token' }],
    })
  })
})

it('a new price in mid-month leaves what was recorded as it was, and charges what comes after', async () => {
  const serviceId = await aService(perRequest(10n))

  /** A call at an instant, priced as the gate does and written as the drain does. */
  async function call(startMs: number) {
    const service = snapshots.current().servicesById.get(serviceId)
    const event = usageEvent({ serviceId, startMs })
    const charge = chargeFor(service && priceAt(service, startMs), event.tokens)
    const { nanos: costNanos, currency, priceVersion } = charge
    await writeBatch(server.sql, [{ ...event, costNanos, currency, priceVersion }])
  }
  const rows = () => server.sql`select * from usage_records where service_id = ${serviceId} order by start_time`

  const started = await databaseNowMs()
  await call(started - 2)
  await call(started - 1)
  const [price] = await server.sql`select * from prices where service_id = ${serviceId}`
  const before = await rows()
  await registry.createPrice({ serviceId, price: perRequest(25n) }, admin)
  await call((await databaseNowMs()) + 1)
  // A call that began before the change and is recorded after it.
  await call(started)

  const after = await rows()
  expect(after.slice(0, 2)).toEqual([...before])
  expect(after.map((row) => [row.cost_nanos, row.price_version])).toEqual([
    [10, 'v1'],
    [10, 'v1'],
    [10, 'v1'],
    [25, 'v2'],
  ])
  const [rollup] = await server.sql`
    select sum(cost_nanos)::int8 as nanos from usage_hourly where service_id = ${serviceId}`
  expect(rollup?.nanos).toBe(55)
  expect(await server.sql`select * from prices where service_id = ${serviceId} and version = 'v1'`).toEqual([price])
  await expect(server.sql`update prices set tiers = '[{}]' where service_id = ${serviceId}`).rejects.toThrow(
    'never changed',
  )
})
