import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConsumerService, ConsumerStatus, Tier } from '../../gen/marketplace/v1/consumers_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { createConsumerService } from './consumer-service.ts'

let server: PostgresServer
let consumers: ReturnType<typeof createConsumerService>
const { createOrganization, createConsumer, getConsumer, listConsumers } = ConsumerService.method

beforeAll(async () => {
  server = await startPostgresServer()
  consumers = createConsumerService({ sql: server.sql, newId: randomUUID })
}, 60_000)

afterAll(() => server?.stop())

let names = 0
function uniqueName(): string {
  return `name-${++names}`
}

async function newOrganization() {
  return invoke(
    createOrganization,
    consumers.createOrganization,
    { organization: { name: uniqueName() } },
    administrator,
  )
}

async function newConsumer(organizationId?: string) {
  const owner = organizationId ?? (await newOrganization()).id
  const consumer = { organizationId: owner, name: uniqueName() }
  return invoke(createConsumer, consumers.createConsumer, { consumer }, administrator)
}

describe('organizations and consumers', () => {
  it('come back as they were stored, with the defaults of unset fields', async () => {
    const { id: organizationId, createTime } = await newOrganization()
    expect(createTime).toBeDefined()
    const plain = await newConsumer(organizationId)
    expect(plain).toMatchObject({ tier: Tier.BASIC, status: ConsumerStatus.ACTIVE, grantedServices: [] })
    expect(plain.overrides).toBeUndefined()

    const consumer = {
      organizationId,
      name: uniqueName(),
      tier: Tier.ENTERPRISE,
      status: ConsumerStatus.SUSPENDED,
      grantedServices: ['*', randomUUID()],
      overrides: { requestsPerSecond: 7n, tokensPerMonth: 0n },
    }
    const stored = await invoke(createConsumer, consumers.createConsumer, { consumer }, administrator)
    expect(stored).toMatchObject(consumer)
    expect(stored.overrides?.requestBurst).toBeUndefined()
    expect(await invoke(getConsumer, consumers.getConsumer, { id: stored.id }, administrator)).toEqual(stored)
    expect(await invoke(getConsumer, consumers.getConsumer, {}, keyOf(stored))).toEqual(stored)
  })

  it('are refused when the name is taken, naming the field; the same name in another organization is free', async () => {
    const organization = await newOrganization()
    await expect(
      invoke(
        createOrganization,
        consumers.createOrganization,
        { organization: { name: organization.name } },
        administrator,
      ),
    ).rejects.toMatchObject({ reason: 'ALREADY_EXISTS', fields: [{ field: 'organization.name' }] })

    const { name } = await newConsumer(organization.id)
    const again = { consumer: { organizationId: organization.id, name } }
    await expect(invoke(createConsumer, consumers.createConsumer, again, administrator)).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
      fields: [{ field: 'consumer.name' }],
      metadata: { value: name },
    })
    const elsewhere = { consumer: { organizationId: (await newOrganization()).id, name } }
    await expect(invoke(createConsumer, consumers.createConsumer, elsewhere, administrator)).resolves.toBeDefined()
  })

  it.each(['', 'nonsense', randomUUID()])('are refused for an organization that does not exist: "%s"', async (id) => {
    const request = { consumer: { organizationId: id, name: uniqueName() } }
    await expect(invoke(createConsumer, consumers.createConsumer, request, administrator)).rejects.toMatchObject({
      reason: 'ORGANIZATION_NOT_FOUND',
      fields: [{ field: 'consumer.organization_id' }],
    })
  })

  it.each(['nonsense', randomUUID()])('are CONSUMER_NOT_FOUND when unknown: %s', async (id) => {
    await expect(invoke(getConsumer, consumers.getConsumer, { id }, administrator)).rejects.toMatchObject({
      reason: 'CONSUMER_NOT_FOUND',
      metadata: { consumerId: id, field: 'id' },
    })
  })

  it('are refused, not failed on, when a name holds what Postgres cannot store', async () => {
    const request = { organization: { name: 'a\u0000b' } }
    await expect(
      invoke(createOrganization, consumers.createOrganization, request, administrator),
    ).rejects.toMatchObject({ reason: 'INVALID_ARGUMENT' })
  })

  it('are listed page by page, each once, in the order of ids', async () => {
    const { id: organizationId } = await newOrganization()
    const made = await Promise.all(Array.from({ length: 5 }, () => newConsumer(organizationId)))
    const seen: string[] = []
    let pageToken = ''
    do {
      const request = { pageSize: 2, pageToken }
      const page = await invoke(listConsumers, consumers.listConsumers, request, administrator)
      expect(page.consumers.length).toBeLessThanOrEqual(2)
      seen.push(...page.consumers.map((consumer) => consumer.id))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual([...new Set(seen)].sort())
    expect(seen).toEqual(expect.arrayContaining(made.map((consumer) => consumer.id)))
  })
})
