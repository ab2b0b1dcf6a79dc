import { afterAll, beforeAll, expect, test } from 'vitest'
import { ConsumerService, ConsumerStatus, OrganizationStatus } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { ProjectService, ProjectStatus } from '../gen/marketplace/v1/projects_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { eventually } from './support/eventually.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { refusal } from './support/refusal.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'

/** Two gates on one Postgres: what is changed through the one holds on the other. */
let postgres: PostgresServer
let one: Tollgate
let other: Tollgate
let tenant: Tenant
let projectId: string

beforeAll(async () => {
  postgres = await startPostgresServer({ migrated: false })
  const env = { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey }
  one = await startTollgate({ command: 'serve', env })
  other = await startTollgate({ command: 'serve', env })
  tenant = await makeTenant(one, adminKey, 'standing', 'http://127.0.0.1:9/')
  const { organizationId } = tenant
  projectId = (await one.client(ProjectService, adminKey).createProject({ project: { name: 'p', organizationId } })).id
  const consumer = { id: tenant.consumerId, projectId }
  await one.client(ConsumerService, adminKey).updateConsumer({ consumer })
  await eventually(callOfKey)
}, 120_000)

afterAll(async () => {
  await one?.stop()
  await other?.stop()
  await postgres?.stop()
})

const callOfKey = () => other.client(ConsumptionService, tenant.key).checkQuota({ serviceId: tenant.serviceId })

/** A call that asks about no consumer of its own accord: only who authenticates can stop it. */
const readOfKey = () => other.client(UsageService, tenant.key).listUsageRecords({})

/** By an administrator, for the consumer. */
const callFor = () => {
  const { serviceId, consumerId } = tenant
  return other.client(ConsumptionService, adminKey).checkQuota({ serviceId, consumerId })
}

async function setOrganization(status: OrganizationStatus): Promise<void> {
  const organization = { id: tenant.organizationId, status }
  await one.client(ConsumerService, adminKey).updateOrganization({ organization, reason: 'test' })
}

async function setProject(status: ProjectStatus): Promise<void> {
  await one.client(ProjectService, adminKey).updateProject({ project: { id: projectId, status }, reason: 'test' })
}

async function setConsumer(status: ConsumerStatus): Promise<void> {
  const consumer = { id: tenant.consumerId, status }
  await one.client(ConsumerService, adminKey).updateConsumer({ consumer, reason: 'test' })
}

test.each([
  [
    'ORGANIZATION_INACTIVE',
    () => setOrganization(OrganizationStatus.SUSPENDED),
    () => setOrganization(OrganizationStatus.ACTIVE),
  ],
  ['PROJECT_INACTIVE', () => setProject(ProjectStatus.SUSPENDED), () => setProject(ProjectStatus.ACTIVE)],
  ['CONSUMER_INACTIVE', () => setConsumer(ConsumerStatus.SUSPENDED), () => setConsumer(ConsumerStatus.ACTIVE)],
])(
  '%s: suspended through one gate, refused by the other, on every wire, until it is active again',
  async (reason, suspend, activate) => {
    await callOfKey()
    await suspend()
    await eventually(async () => (await refusal(callOfKey())).reason === reason)
    expect(await refusal(callOfKey())).toMatchObject({ code: 7, reason, metadata: { status: 'suspended' } })
    expect(await refusal(readOfKey())).toMatchObject({ code: 7, reason })
    expect(await refusal(callFor())).toMatchObject({ code: 7, reason })
    const headers = { authorization: `Bearer ${tenant.key}` }
    const models = await fetch(`${other.address}/v1/models`, { headers })
    expect(models.status).toBe(403)
    expect(await models.json()).toMatchObject({ error: { code: reason.toLowerCase() } })
    await activate()
    await eventually(callOfKey)
    await callFor()
    await readOfKey()
  },
)
