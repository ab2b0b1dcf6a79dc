import { once } from 'node:events'
import { Code, ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { makeTenant } from './support/tenant.ts'
import { spawnTollgate, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'

describe('tollgate serve, from the bundle, on a real Postgres and a real Redis', () => {
  let postgres: PostgresServer
  let redis: RedisServer
  let backend: PracticeBackend
  let tollgate: Tollgate

  const start = (env: Record<string, string> = {}): Promise<Tollgate> =>
    startTollgate({
      command: 'serve',
      entry: 'bundle',
      env: {
        DATABASE_URL: postgres.url,
        REDIS_URL: redis.url,
        TOLLGATE_ADMIN_KEY: adminKey,
        BREAKER_RESET_MS: '500',
        ...env,
      },
    })

  beforeAll(async () => {
    postgres = await startPostgresServer({ migrated: false })
    redis = await startRedisServer()
    backend = await startPracticeBackend({})
    tollgate = await start()
  })

  afterAll(async () => {
    await tollgate?.stop()
    await backend?.close()
    await redis?.stop()
    await postgres?.stop()
  })

  const tenant = (name: string, overrides: { requestsPerSecond?: bigint; requestBurst?: bigint } = {}) =>
    makeTenant(tollgate, adminKey, name, `${backend.url}/v1/chat/completions`, overrides)

  async function failure(call: Promise<unknown>): Promise<ConnectError> {
    return call.then(
      () => {
        throw new Error('the call succeeded')
      },
      (error: unknown) => ConnectError.from(error),
    )
  }

  test('an administrator makes everything that a call needs, and the call leaves its record', async () => {
    const { organizationId, serviceId, consumerId, key } = await tenant('first')
    const answer = await tollgate.client(ConsumptionService, key).routeRequest({ serviceId, payload: chat('hello') })
    expect(answer.cost).toMatchObject({ amountNanos: 1_000_000n, amount: 0.001, currency: 'USD' })
    const usage = tollgate.client(UsageService, key)
    const record = await eventually(async () => (await usage.listUsageRecords({})).usageRecords[0])
    expect(record).toMatchObject({ requestId: answer.requestId, consumerId, serviceId, organizationId })
    expect(record.usage).toEqual(answer.usage)
  })

  test('200 calls at once against a burst of 20: never more admitted, the refused took nothing', async () => {
    const { serviceId, consumerId, key } = await tenant('burst', { requestsPerSecond: 1n, requestBurst: 20n })
    const consumption = tollgate.client(ConsumptionService, key)
    const startedMs = Date.now()
    const results = await Promise.allSettled(
      Array.from({ length: 200 }, () => consumption.routeRequest({ serviceId, payload: chat('all at once') })),
    )
    const refill = Math.ceil((Date.now() - startedMs) / 1000)
    const answered = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    const refused = results.flatMap((result) =>
      result.status === 'rejected' ? [ConnectError.from(result.reason)] : [],
    )
    expect(answered.length).toBeGreaterThanOrEqual(20)
    expect(answered.length).toBeLessThanOrEqual(20 + refill)
    for (const error of refused) {
      expect(error.code).toBe(Code.ResourceExhausted)
      const [info] = error.findDetails(ErrorInfoSchema)
      const [retry] = error.findDetails(RetryInfoSchema)
      const [quota] = error.findDetails(QuotaFailureSchema)
      expect(info).toMatchObject({ reason: 'RATE_LIMITED', metadata: { capacity: '20', limit: 'requests_per_second' } })
      const delayMs = Number(retry?.retryDelay?.seconds) * 1000 + (retry?.retryDelay?.nanos ?? 0) / 1e6
      expect(String(delayMs)).toBe(info?.metadata.retryAfterMs)
      expect(quota?.violations[0]?.subject).toBe(`consumer:${consumerId}`)
    }
    const used = answered.reduce((sum, answer) => sum + (answer.usage?.totalTokens ?? 0n), 0n)
    const usage = tollgate.client(UsageService, key)
    await eventually(
      async () => (await usage.listUsageRecords({ pageSize: 1000 })).usageRecords.length === answered.length,
    )
    expect((await consumption.checkQuota({ serviceId })).used).toBe(used)
  })

  test('an answered call is in the ledger exactly once after kill -9', async () => {
    const { serviceId, key } = await tenant('crash')
    const consumption = tollgate.client(ConsumptionService, key)
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => consumption.routeRequest({ serviceId, payload: chat(`crash ${i}`) })),
    )
    await tollgate.kill9()
    tollgate = await start()
    const usage = tollgate.client(UsageService, key)
    const records = await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({ pageSize: 1000 })
      return usageRecords.length >= 20 ? usageRecords : undefined
    })
    expect(records.map((record) => record.requestId).sort()).toEqual(answers.map((a) => a.requestId).sort())
  })

  test('five failing answers open the breaker, everyone can see it, and one probe closes it', async () => {
    const { serviceId, endpointId, key } = await tenant('breaker')
    const consumption = tollgate.client(ConsumptionService, key)
    const call = (model: string) => consumption.routeRequest({ serviceId, payload: chat('x', model) })
    for (let i = 0; i < 5; i += 1) {
      // A timeout behind the only endpoint is not tried again there.
      const error = await failure(call('practice:status=504'))
      expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe('BACKEND_FAILED')
    }
    const open = await failure(call('practice'))
    expect(open.code).toBe(Code.Unavailable)
    expect(open.findDetails(ErrorInfoSchema)[0]).toMatchObject({ reason: 'BREAKER_OPEN', metadata: { endpointId } })
    expect(open.findDetails(RetryInfoSchema)).toHaveLength(1)
    const health = await fetch(`${tollgate.address}/health/detailed`)
    expect(await health.json()).toMatchObject({
      breakers: expect.arrayContaining([{ serviceId, endpointId, state: 'open' }]),
    })
    const metric = new RegExp(`tollgate_breaker_state\\{[^}]*endpoint_id="${endpointId}"[^}]*\\} (\\d)`)
    const state = async (): Promise<string | undefined> =>
      metric.exec(await (await fetch(`${tollgate.address}/metrics`)).text())?.[1]
    expect(await state()).toBe('2')
    await eventually(async () => (await state()) === '1')
    await call('practice')
    expect(await state()).toBe('0')
  })

  test('a grant is what policy asks for', async () => {
    const { key } = await tenant('granted')
    const { serviceId } = await tenant('not-granted')
    const error = await failure(
      tollgate.client(ConsumptionService, key).routeRequest({ serviceId, payload: chat('x') }),
    )
    expect(error.code).toBe(Code.PermissionDenied)
    expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({ reason: 'POLICY_DENIED' })
  })

  test('a revoked key stops working', async () => {
    const { serviceId, consumerId, key } = await tenant('revoked')
    const consumption = tollgate.client(ConsumptionService, key)
    await consumption.routeRequest({ serviceId, payload: chat('before') })
    const keys = tollgate.client(KeyService, adminKey)
    const { apiKeys } = await keys.listKeys({ consumerId })
    await keys.revokeKey({ consumerId, keyId: apiKeys[0]?.id ?? '' })
    const error = await eventually(async () => {
      const outcome = await consumption
        .routeRequest({ serviceId, payload: chat('after') })
        .catch((failed: unknown) => ConnectError.from(failed))
      return outcome instanceof ConnectError ? outcome : undefined
    })
    expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({ reason: 'CREDENTIAL_REVOKED' })
  })

  test('what a fault of the backend leaves: an error, a record, and no charge', async () => {
    const { serviceId, key } = await tenant('faults')
    const consumption = tollgate.client(ConsumptionService, key)
    const faults: [string, string][] = [
      ['status=401', 'BACKEND_CREDENTIAL_REFUSED'],
      ['status=400', 'BACKEND_REJECTED'],
      ['html', 'BACKEND_ANSWER_INVALID'],
      ['reset', 'BACKEND_FAILED'],
    ]
    for (const [fault, reason] of faults) {
      const error = await failure(consumption.routeRequest({ serviceId, payload: chat('x', `practice:${fault}`) }))
      expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe(reason)
    }
    const usage = tollgate.client(UsageService, key)
    const all = await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({})
      // The connection that was reset is tried again twice.
      return usageRecords.length === faults.length + 2 ? usageRecords : undefined
    })
    expect(
      all
        .filter(({ requests }) => requests === 0)
        .map(({ attempt }) => attempt)
        .sort(),
    ).toEqual([1, 2])
    const records = all.filter(({ requests }) => requests === 1)
    expect(records.map((record) => record.errorReason).sort()).toEqual(faults.map(([, reason]) => reason).sort())
    for (const record of records) expect(record.cost?.amountNanos).toBe(0n)
    expect((await consumption.checkQuota({ serviceId })).used).toBe(0n)
  })
})

test('names every wrong setting at once and leaves with an error', async () => {
  const env = { PORT: '70000', LOG_LEVEL: 'loud', REDIS_URL: 'http://localhost' }
  const { child, output } = spawnTollgate(['serve'], env, 'bundle')
  const [code] = await once(child, 'close')
  expect(code).not.toBe(0)
  for (const text of ['PORT', '70000', 'LOG_LEVEL', 'loud', 'REDIS_URL']) expect(output()).toContain(text)
})
