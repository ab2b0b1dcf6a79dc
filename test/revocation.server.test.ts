/** A key that ends at one replica ends at the other. How fast is measured by bench/revocation.ts. */
import { Code, ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { eventually } from './support/eventually.ts'
import { type Replicas, startReplicas } from './support/replicas.ts'

let replicas: Replicas
let consumerId: string

beforeAll(async () => {
  replicas = await startReplicas()
  const consumers = replicas.one.client(ConsumerService, replicas.adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'revocation' } })
  consumerId = (await consumers.createConsumer({ consumer: { name: 'revocation', organizationId } })).id
}, 120_000)

afterAll(() => replicas?.stop())

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
