/** A key that ends at one replica ends at the other. How fast is measured by bench/revocation.ts. */
import { Code, ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService, UsageSource } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { Registry, RevocationPolicy } from '../gen/marketplace/v1/registry_pb.ts'
import { CallStatus, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type Replicas, startReplicas } from './support/replicas.ts'

let replicas: Replicas
let consumerId: string
let backend: PracticeBackend

beforeAll(async () => {
  replicas = await startReplicas()
  const consumers = replicas.one.client(ConsumerService, replicas.adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'revocation' } })
  const consumer = { name: 'revocation', organizationId, grantedServices: ['*'] }
  consumerId = (await consumers.createConsumer({ consumer })).id
  backend = await startPracticeBackend()
}, 120_000)

afterAll(async () => {
  await replicas?.stop()
  await backend?.close()
})

/** Makes a key at one replica, and lets the other find it good. */
async function makeKnown(): Promise<{ id: string; use(): Promise<unknown> }> {
  const made = await replicas.one.client(KeyService, replicas.adminKey).createKey({ consumerId })
  const keys = replicas.other.client(KeyService, made.key)
  const use = (): Promise<unknown> => keys.listKeys({})
  await use()
  return { id: made.apiKey?.id ?? '', use }
}

/** Waits until the other replica refuses a key. */
async function refusalOf({ use }: { use(): Promise<unknown> }): Promise<ConnectError> {
  const ask = () =>
    use().then(
      () => undefined,
      (error: unknown) => ConnectError.from(error),
    )
  return eventually(ask, { what: () => 'a refusal' })
}

describe.each([
  ['by notification', false],
  ['by its own look when notifications do not arrive', true],
])('%s the other replica refuses', (_, isDeaf) => {
  beforeAll(() => replicas.notifications.setDeaf(isDeaf))

  test('a key that was revoked', async () => {
    const key = await makeKnown()
    const before = replicas.notifications.dropped()
    await replicas.one.client(KeyService, replicas.adminKey).revokeKey({ consumerId, keyId: key.id })
    const refusal = await refusalOf(key)
    expect([refusal.code, refusal.message]).toEqual([Code.Unauthenticated, expect.stringContaining('is revoked')])
    expect(replicas.notifications.dropped() > before).toBe(isDeaf)
  })

  test('a key that was rotated without an overlap', async () => {
    const key = await makeKnown()
    await replicas.one.client(KeyService, replicas.adminKey).rotateKey({ consumerId, keyId: key.id })
    const refusal = await refusalOf(key)
    expect([refusal.code, refusal.message]).toEqual([Code.Unauthenticated, expect.stringContaining('expired')])
  })
})

describe('a stream that runs at the other replica when its key is revoked', () => {
  /** Streams from a service with this policy, and revokes the key after the first output. */
  async function revokeWithin(onRevoke: RevocationPolicy, fault: string) {
    const name = `stream-${onRevoke}`
    const service = {
      name,
      version: '1.0.0',
      endpoints: [{ url: `${backend.url}/v1/chat/completions?fault=${encodeURIComponent(fault)}` }],
      onRevoke,
    }
    const { id: serviceId } = await replicas.one.client(Registry, replicas.adminKey).registerService({ service })
    const admin = replicas.one.client(KeyService, replicas.adminKey)
    const { key, apiKey } = await admin.createKey({ consumerId })
    const caller = replicas.other.client(ConsumptionService, key)
    let revocation: Promise<unknown> | undefined
    let error: ConnectError | undefined
    try {
      // The other replica may not know the service yet.
      await eventually(() => caller.checkQuota({ serviceId }).then(() => true))
      for await (const { part } of caller.streamRequest({ serviceId, payload: chat('x') })) {
        if (part.case === 'eventData') revocation ??= admin.revokeKey({ consumerId, keyId: apiKey?.id ?? '' })
      }
    } catch (thrown) {
      error = ConnectError.from(thrown)
    }
    await revocation
    const usage = replicas.one.client(UsageService, replicas.adminKey)
    const record = await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({ consumerId })
      return usageRecords.find((each) => each.serviceId === serviceId)
    })
    return { error, record }
  }

  test('is cut with the reason where the service wants it, and what was delivered is recorded', async () => {
    const { error, record } = await revokeWithin(RevocationPolicy.CANCEL, 'out=256,pace=100')
    expect([error?.code, error?.message]).toEqual([Code.Unauthenticated, expect.stringContaining('is revoked')])
    expect(record).toMatchObject({ status: CallStatus.CANCELLED, errorReason: 'CREDENTIAL_REVOKED' })
    expect(record.usage).toMatchObject({ source: UsageSource.PARTIAL })
    expect(record.usage?.outputTokens).toBeGreaterThan(0n)
    expect(record.usage?.outputTokens).toBeLessThan(256n)
  })

  test('goes on to its end by default', async () => {
    const { error, record } = await revokeWithin(RevocationPolicy.UNSPECIFIED, 'out=10,pace=100')
    expect(error).toBeUndefined()
    expect(record).toMatchObject({ status: CallStatus.SUCCEEDED, usage: { outputTokens: 10n } })
  })
})

test('without Postgres keys that are known stay good, others cannot be looked up, and a revocation holds when it is back', async () => {
  replicas.notifications.setDeaf(false)
  const known = await makeKnown()
  const unknown = await replicas.one.client(KeyService, replicas.adminKey).createKey({ consumerId })
  await replicas.postgres.shutDown()
  const models = (key: string) =>
    fetch(`${replicas.other.address}/v1/models`, { headers: { authorization: `Bearer ${key}` } })
  expect((await models(unknown.key)).status).toBe(503)
  // ListKeys itself needs Postgres: that it gets so far says that the key was let in.
  await expect(known.use()).rejects.toMatchObject({ code: Code.Unavailable })
  await replicas.postgres.restart()
  const revoke = () =>
    replicas.one
      .client(KeyService, replicas.adminKey)
      .revokeKey({ consumerId, keyId: known.id })
      .then(
        () => true,
        () => false,
      )
  await eventually(revoke)
  const refused = async () => {
    const error = await known.use().catch((reason: unknown) => ConnectError.from(reason))
    return error instanceof ConnectError && error.code === Code.Unauthenticated
  }
  await eventually(refused)
})
