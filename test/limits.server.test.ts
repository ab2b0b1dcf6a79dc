/**
 * Limits from outside: two gateways on one Redis and one Postgres, administered and called as their users do.
 */
import { Code, ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ErrorInfoSchema, QuotaFailureSchema } from '../gen/google/rpc/error_details_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { LimitName, LimitScope, LimitService } from '../gen/marketplace/v1/limits_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { refusal } from './support/refusal.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
/** Nano-units of a token, input or output alike. */
const tokenNanos = 2_000n

describe('limits of two gateways that share a Redis and a Postgres', () => {
  let postgres: PostgresServer
  let redis: RedisServer
  let backend: PracticeBackend
  let gateways: Tollgate[]

  beforeAll(async () => {
    postgres = await startPostgresServer({ migrated: false })
    redis = await startRedisServer()
    backend = await startPracticeBackend({})
    const env = { DATABASE_URL: postgres.url, REDIS_URL: redis.url, TOLLGATE_ADMIN_KEY: adminKey }
    gateways = await Promise.all([1, 2].map(() => startTollgate({ command: 'serve', env })))
  })

  afterAll(async () => {
    await Promise.all((gateways ?? []).map((gateway) => gateway.stop()))
    await backend?.close()
    await redis?.stop()
    await postgres?.stop()
  })

  function gateway(index: number): Tollgate {
    const found = gateways[index % gateways.length]
    if (found === undefined) throw new Error('no gateway runs')
    return found
  }

  /** A tenant with room for everything that no test limits, whose tokens have a price. */
  async function tenantOf(name: string): Promise<Tenant> {
    const rate = tokenNanos * 1_000_000n
    const ample = { requestsPerSecond: 1_000_000n, requestBurst: 1_000_000n, tokensPerMonth: 1_000_000_000n }
    const perToken = { inputNanosPerMillion: rate, outputNanosPerMillion: rate }
    const url = `${backend.url}/v1/chat/completions`
    const tenant = await makeTenant(gateway(0), adminKey, name, url, ample, { case: 'perToken', value: perToken })
    // The other gateway hears of the tenant a moment later.
    await eventually(() =>
      consumption(tenant, 1)
        .checkQuota({ serviceId: tenant.serviceId })
        .then(() => true),
    )
    return tenant
  }

  const consumption = (tenant: Tenant, index: number) => gateway(index).client(ConsumptionService, tenant.key)

  async function limit(scope: LimitScope, subjectId: string, name: LimitName, amount: bigint): Promise<void> {
    const currency = name === LimitName.COST_PER_MONTH ? 'USD' : ''
    const asked = { limit: { scope, subjectId, name, amount, currency } }
    await gateway(0).client(LimitService, adminKey).setLimit(asked)
  }

  /** Until both gateways know of so many limits of the tenant's calls. */
  async function known(tenant: Tenant, limits: number): Promise<void> {
    for (const index of [0, 1]) {
      await eventually(async () => {
        const quota = await consumption(tenant, index).getQuota({ serviceId: tenant.serviceId })
        return quota.limits.length === limits
      })
    }
  }

  async function standings(tenant: Tenant): Promise<Map<string, bigint>> {
    const { limits } = await consumption(tenant, 0).getQuota({ serviceId: tenant.serviceId })
    return new Map(limits.map((status) => [`${status.limit} ${status.subject} ${status.serviceId}`, status.used]))
  }

  const seeds = Array.from({ length: 20 }, (_, index) => index + 1)
  test.each(seeds)(
    '200 calls at once at the edge of a money budget never spend more than it (seed %i)',
    async (seed) => {
      const tenant = await tenantOf(`budget-${seed}`)
      const next = random(seed)
      // The practice backend reports exactly what it is told to; the estimate of a payload is exact or too high.
      const budget = BigInt(2_000 + next(4_000)) * tokenNanos
      await limit(LimitScope.CONSUMER, tenant.consumerId, LimitName.COST_PER_MONTH, budget)
      await known(tenant, 3)
      const outcomes = await Promise.allSettled(
        Array.from({ length: 200 }, (_, index) => {
          const output = 1 + next(80)
          const payload = chat('at the edge', `practice:in=20,out=${output}`, output)
          return consumption(tenant, index).routeRequest({ serviceId: tenant.serviceId, payload })
        }),
      )
      let spent = 0n
      const reasons = new Set<string>()
      for (const outcome of outcomes) {
        if (outcome.status === 'fulfilled') spent += outcome.value.cost?.amountNanos ?? 0n
        else reasons.add(reasonOf(outcome.reason))
      }
      expect(spent).toBeLessThanOrEqual(budget)
      expect(spent).toBeGreaterThan(0n)
      expect([...reasons]).toEqual(['QUOTA_EXCEEDED'])
      expect((await standings(tenant)).get(`cost_per_month consumer:${tenant.consumerId} `)).toBe(spent)
      const { costs } = await eventually(async () => {
        const stats = await gateway(1).client(UsageService, tenant.key).getUsageStats({ serviceId: tenant.serviceId })
        return stats.totalRequests === BigInt(outcomes.filter(({ status }) => status === 'fulfilled').length) && stats
      })
      expect(costs[0]?.amountNanos).toBe(spent)
    },
  )

  const scopes = [
    ['key', LimitScope.KEY, (tenant: Tenant) => tenant.key.split('_')[2] ?? ''],
    ['consumer', LimitScope.CONSUMER, (tenant: Tenant) => tenant.consumerId],
    ['organization', LimitScope.ORGANIZATION, (tenant: Tenant) => tenant.organizationId],
    ['service', LimitScope.SERVICE, (tenant: Tenant) => tenant.serviceId],
  ] as const

  test.each(scopes)(
    'a call that the limit of the %s refuses takes nothing from any scope',
    async (kind, scope, idOf) => {
      const tenant = await tenantOf(`scope-${kind}`)
      const names = [LimitName.TOKENS_PER_MONTH, LimitName.COST_PER_MONTH, LimitName.CONCURRENT_REQUESTS]
      for (const [, other, otherId] of scopes) {
        for (const name of names) await limit(other, otherId(tenant), name, 1_000_000n)
      }
      await limit(scope, idOf(tenant), LimitName.TOKENS_PER_MONTH, 300n)
      await known(tenant, 2 + scopes.length * names.length)
      const { serviceId } = tenant
      await consumption(tenant, 0).routeRequest({ serviceId, payload: chat('one', 'practice:in=20,out=50', 50) })
      const before = await standings(tenant)
      const refused = await consumption(tenant, 1)
        .routeRequest({ serviceId, payload: chat('two', 'practice:in=20,out=50', 290) })
        .then(
          () => undefined,
          (error: unknown) => ConnectError.from(error),
        )
      expect(refused?.code).toBe(Code.ResourceExhausted)
      expect(refused?.findDetails(QuotaFailureSchema)[0]?.violations[0]).toMatchObject({
        subject: `${kind}:${idOf(tenant)}`,
        quotaId: 'tokens_per_month',
      })
      const after = await standings(tenant)
      // The bucket of requests refills meanwhile; everything else stands where it stood.
      const rate = `requests_per_second consumer:${tenant.consumerId} ${serviceId}`
      expect(after.get(rate)).toBeLessThanOrEqual(before.get(rate) ?? 0n)
      for (const standing of [before, after]) standing.delete(rate)
      expect(after).toEqual(before)
      expect([...after.values()].filter((used) => used === 70n)).toHaveLength(5)
    },
  )

  test('an estimate says what a call would take, takes nothing, and is what the call then costs', async () => {
    const tenant = await tenantOf('estimate')
    await limit(LimitScope.CONSUMER, tenant.consumerId, LimitName.COST_PER_MONTH, 200n * tokenNanos)
    await known(tenant, 3)
    const payload = chat('what would it cost', 'practice:in=20,out=60', 60)
    const asked = { serviceId: tenant.serviceId, payload }
    const before = await standings(tenant)
    const estimate = await consumption(tenant, 0).estimateCost(asked)
    const tokens = BigInt(Math.ceil(payload.length / 4)) + 60n
    expect(estimate).toMatchObject({ admissible: true, reservedNanos: tokens * tokenNanos })
    expect(estimate.usage?.totalTokens).toBe(tokens)
    expect(estimate.cost?.amountNanos).toBe(tokens * tokenNanos)
    expect(estimate.reservations.map(({ amount }) => amount)).toEqual([1n, tokens, tokens * tokenNanos])
    expect(await standings(tenant)).toEqual(before)
    await consumption(tenant, 0).routeRequest(asked)
    expect((await consumption(tenant, 1).estimateCost({ ...asked, payload: chat('x', 'm', 180) })).admissible).toBe(
      false,
    )
  })

  test('an idempotency key makes one call on whatever gateway, by field or by header', async () => {
    const tenant = await tenantOf('idempotency')
    const request = { serviceId: tenant.serviceId, payload: chat('once', 'practice:delay=200') }
    const [key, headers] = ['order 66', { 'idempotency-key': 'order 66' }]
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        index % 3 === 0
          ? consumption(tenant, index).routeRequest(request, { headers })
          : consumption(tenant, index).routeRequest({ ...request, idempotencyKey: key }),
      ),
    )
    answers.push(await consumption(tenant, 1).routeRequest({ ...request, idempotencyKey: key }))
    expect(new Set(answers.map(({ requestId }) => requestId)).size).toBe(1)
    expect(new Set(answers.map(({ responseData }) => Buffer.from(responseData).toString('base64'))).size).toBe(1)
    expect(answers.filter(({ replayed }) => !replayed)).toHaveLength(1)
    const other = consumption(tenant, 0).routeRequest({ ...request, payload: chat('twice'), idempotencyKey: key })
    expect(reasonOf(await other.catch((error: unknown) => error))).toBe('IDEMPOTENCY_KEY_REUSED')
    const usage = gateway(0).client(UsageService, tenant.key)
    await eventually(async () => (await usage.listUsageRecords({})).usageRecords.length === 1)
    expect((await standings(tenant)).get(`tokens_per_month consumer:${tenant.consumerId} ${tenant.serviceId}`)).toBe(
      answers[0]?.usage?.totalTokens,
    )
  })

  test('the limits of a key are shown to that key and to administrators', async () => {
    const [tenant, other] = [await tenantOf('own-key'), await tenantOf('other-key')]
    const keyId = other.key.split('_')[2] ?? ''
    await limit(LimitScope.KEY, keyId, LimitName.COST_PER_MONTH, 5_000_000n)
    await known(other, 3)
    const { serviceId } = tenant
    const spied = consumption(tenant, 0).getQuota({ serviceId, keyId })
    expect(reasonOf(await spied.catch((error: unknown) => error))).toBe('CONSUMER_MISMATCH')
    const asked = { serviceId: other.serviceId, consumerId: other.consumerId, keyId }
    const admin = gateway(0).client(ConsumptionService, adminKey)
    expect((await admin.getQuota(asked)).limits).toHaveLength(3)
    for (const wrong of ['nobody', tenant.key.split('_')[2] ?? '']) {
      expect(await refusal(admin.getQuota({ ...asked, keyId: wrong }))).toMatchObject({
        code: Code.NotFound,
        reason: 'KEY_NOT_FOUND',
        fields: [{ field: 'key_id' }],
      })
    }
    const strange = { ...asked, consumerId: tenant.serviceId }
    for (const call of [admin.getQuota(strange), admin.checkQuota(strange), admin.estimateCost(strange)]) {
      expect(await refusal(call)).toMatchObject({
        code: Code.NotFound,
        reason: 'CONSUMER_NOT_FOUND',
        fields: [{ field: 'consumer_id' }],
      })
    }
  })

  test('both spellings of an idempotency key must agree', async () => {
    const tenant = await tenantOf('two-keys')
    const request = { serviceId: tenant.serviceId, payload: chat('x'), idempotencyKey: 'a' }
    const call = consumption(tenant, 0).routeRequest(request, { headers: { 'idempotency-key': 'b' } })
    expect(reasonOf(await call.catch((error: unknown) => error))).toBe('INVALID_ARGUMENT')
  })

  test('a misspelled field or name is refused, and not left out in silence', async () => {
    const tenant = await tenantOf('misspelled')
    const right = { scope: 'LIMIT_SCOPE_CONSUMER', subjectId: tenant.consumerId, name: 'LIMIT_NAME_TOKENS_PER_MONTH' }
    for (const limit of [
      { ...right, amoun: '5' },
      { ...right, amount: '5', name: 'TOKENS_PER_MONTH' },
    ]) {
      const answer = await fetch(`${gateway(0).address}/marketplace.v1.LimitService/SetLimit`, {
        method: 'POST',
        headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
        body: JSON.stringify({ limit }),
      })
      expect(answer.status).toBe(400)
    }
    await known(tenant, 2)
  })

  test('a service without a price is refused under a budget, and marked without one', async () => {
    const url = `${backend.url}/v1/chat/completions`
    const tenant = await makeTenant(gateway(0), adminKey, 'unpriced', url, {}, 'unpriced')
    const request = { serviceId: tenant.serviceId, payload: chat('x') }
    const answer = await consumption(tenant, 0).routeRequest(request)
    expect(answer.cost).toMatchObject({ priceVersion: '', amountNanos: 0n })
    await limit(LimitScope.ORGANIZATION, tenant.organizationId, LimitName.COST_PER_MONTH, 1n)
    const refused = await consumption(tenant, 0)
      .routeRequest(request)
      .catch((error: unknown) => error)
    expect(reasonOf(refused)).toBe('PRICE_MISSING')
  })
})

function reasonOf(error: unknown): string {
  return ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.reason ?? String(error)
}

/** Whole numbers from 0 to below `most`, the same for the same seed. */
function random(seed: number): (most: number) => number {
  let state = seed
  return (most) => {
    // Numerical Recipes' linear congruential generator.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * most)
  }
}
