/** Policies as administrators make, change, try and look at them: two gateways on one Postgres, told through the first. */
import { Code } from '@connectrpc/connect'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { PolicyMode } from '../gen/marketplace/v1/policies_pb.ts'
import { ContentAction, PolicyEngine, PolicyOutcome, PolicySeverity } from '../gen/marketplace/v1/policy_pb.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { address, adminKey, emails, PolicyWorld, type Spec } from './support/policy-world.ts'
import { refusal } from './support/refusal.ts'

let world: PolicyWorld

beforeAll(async () => {
  world = await PolicyWorld.start()
}, 120_000)
afterAll(() => world?.close())
beforeEach(() => world.disableAll())

const access = (allowIf: string): Spec => ({ rule: { case: 'access', value: { allowIf } } })

test('every replica follows what one of them was told: a version, another, the one before, none', async () => {
  const policyId = await world.enforce(access('false'))
  await world.untilDenied('x')
  await world.policies().createPolicyVersion({ policyId, spec: access('true') })
  expect((await refusal(world.route(world.second, 'x'))).code).toBe(Code.PermissionDenied)
  await world.policies().activatePolicy({ policyId, mode: PolicyMode.ENFORCE })
  await eventually(() => world.route(world.second, 'x'))
  const rolledBack = await world.policies(world.second).rollbackPolicy({ policyId })
  expect(rolledBack).toMatchObject({ activeVersion: 1n, latestVersion: 2n, mode: PolicyMode.ENFORCE })
  await eventually(async () => (await refusal(world.route(world.first, 'x'))).code === Code.PermissionDenied)
  expect(await refusal(world.policies().rollbackPolicy({ policyId }))).toMatchObject({ code: Code.InvalidArgument })
  const disabled = await world.policies().disablePolicy({ policyId })
  expect(disabled).toMatchObject({ activeVersion: 1n, mode: PolicyMode.DISABLED })
  await eventually(() => world.route(world.second, 'x'))
})

test('a replica follows each of many changes', async () => {
  const policyId = await world.enforce(access('false'))
  for (let round = 0; round < 10; round += 1) {
    await world.policies().disablePolicy({ policyId })
    await eventually(() => world.route(world.second, 'x'))
    await world.policies().activatePolicy({ policyId, mode: PolicyMode.ENFORCE })
    await world.untilDenied('x')
  }
})

test('an expression that cannot work is refused with its line and column, and leaves nothing', async () => {
  const name = 'never-made'
  const spec: Spec = { when: 'consumer.tier == "basic" &&\n  request.size > "1"', ...access('true') }
  const refused = await refusal(world.policies().createPolicy({ policy: { name }, spec }))
  expect(refused).toMatchObject({
    code: Code.InvalidArgument,
    reason: 'INVALID_ARGUMENT',
    metadata: { field: 'spec.when', line: '2', column: '16' },
  })
  expect(refused.fields[0]?.description).toMatch(/^2:16: found no matching overload for '_>_'/)
  expect(await refusal(world.policies().getPolicy({ policyId: name }))).toMatchObject({ code: Code.NotFound })
})

test('versions stay as they are, and leave a trail with who made them', async () => {
  const name = 'with-a-trail'
  const { id } = await world.policies().createPolicy({ policy: { name }, spec: access('true'), comment: 'first' })
  await world.policies().createPolicyVersion({ policyId: name, spec: access('false'), comment: 'second' })
  await world.policies().activatePolicy({ policyId: name, version: 1n, mode: PolicyMode.AUDIT_ONLY })
  const { versions } = await world.policies().listPolicyVersions({ policyId: id })
  expect(versions).toMatchObject([
    { version: 2n, comment: 'second', createdBy: 'administrator', spec: { rule: { value: { allowIf: 'false' } } } },
    { version: 1n, comment: 'first' },
  ])
  await expect(
    world.postgres.sql`update policy_versions set comment = 'x' where policy_id = ${id}`.then(() => 'changed'),
  ).rejects.toThrow('never changed')
  const trail = await world.postgres.sql<{ action: string }[]>`
    select action from audit_records where resource = ${`policy/${id}`} order by created_at, id`
  expect(trail.map(({ action }) => action)).toEqual(['policy.created', 'policy.version_created', 'policy.activated'])
  const changes = await world.postgres.sql`select 1 from changes where resource_kind = 'policy' and resource_id = ${id}`
  expect(changes).toHaveLength(3)
})

test('names are unique, and pages go through all of them', async () => {
  const made = await world.policies().createPolicy({ policy: { name: 'page-a' }, spec: access('true') })
  await world.policies().createPolicy({ policy: { name: 'page-b' }, spec: access('true') })
  const again = refusal(world.policies().createPolicy({ policy: { name: 'page-a' }, spec: access('true') }))
  expect(await again).toMatchObject({ reason: 'ALREADY_EXISTS' })
  expect(await world.policies().getPolicy({ policyId: 'page-a' })).toEqual(made)
  const seen: string[] = []
  let pageToken = ''
  do {
    const page = await world.policies().listPolicies({ pageSize: 1, pageToken })
    seen.push(...page.policies.map(({ name }) => name))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  expect(seen).toEqual(seen.toSorted())
  expect(seen).toEqual(expect.arrayContaining(['page-a', 'page-b']))
  expect(new Set(seen).size).toBe(seen.length)
})

test('a test says what a rule would decide, at what cost, and stores nothing', async () => {
  const spec: Spec = { ...emails(ContentAction.REDACT), when: 'consumer.tier == "basic"' }
  const facts = { consumer: { tier: 'basic' } }
  const tested = await world.policies().testPolicy({ spec, facts, payload: Buffer.from(`{"a":"${address}"}`) })
  expect(tested).toMatchObject({ matched: true, error: '', decision: { allowed: true } })
  expect(tested.cost).toBeGreaterThan(0n)
  expect(Buffer.from(tested.decision?.redactedPayload ?? []).toString()).toBe('{"a":"[redacted:email]"}')
  const other = await world.policies().testPolicy({ spec, facts: { consumer: { tier: 'premium' } } })
  expect(other).toMatchObject({ matched: false, decision: { allowed: true, violations: [] } })
  const broken = await world.policies().testPolicy({ spec: access('request.metadata["x"] == ""') })
  expect(broken).toMatchObject({ decision: { allowed: false }, error: expect.stringContaining('failed') })
})

test('a dry run shows which past calls another rule would have decided otherwise', async () => {
  const policyId = await world.enforce({
    when: 'request.max_output_tokens > 1000',
    rule: { case: 'access', value: {} },
  })
  const call = (maxTokens: number) =>
    world.second
      .client(ConsumptionService, world.tenant.key)
      .routeRequest({ serviceId: world.tenant.serviceId, payload: chat('x', 'practice', maxTokens) })
  await eventually(async () => (await refusal(call(2_000))).code === Code.PermissionDenied)
  const afterMs = Date.now()
  const { requestId } = await call(500)
  const spec: Spec = { when: 'request.max_output_tokens > 100', rule: { case: 'access', value: {} } }
  const stricter = await eventually(async () => {
    const run = await world.policies().dryRunPolicy({ policyId, spec, maxCalls: 10_000 })
    return run.differences.some((each) => each.requestId === requestId) ? run : undefined
  })
  const difference = stricter.differences.find((each) => each.requestId === requestId)
  expect(difference).toMatchObject({ wasAllowed: true, wouldBeAllowed: false, consumerId: world.tenant.consumerId })
  expect(Number(difference?.time?.seconds)).toBeGreaterThanOrEqual(Math.floor(afterMs / 1000) - 1)
  expect(stricter.notes.join()).toContain('of no call what it sent')

  const looser = await world.policies().dryRunPolicy({
    policyId,
    spec: { when: 'request.max_output_tokens > 9999', rule: { case: 'access', value: {} } },
    maxCalls: 10_000,
  })
  expect(looser.newlyAllowed).toBeGreaterThan(0)
  expect(looser.newlyDenied).toBe(0)
  const blind = await world.policies().dryRunPolicy({ spec: emails(ContentAction.DENY) })
  expect(blind).toMatchObject({ undecided: blind.examined, newlyDenied: 0 })
  expect(blind.notes.join()).toContain('Rules of content cannot be tried')
})

test('violations are listed by what they are about, page by page, and those of others beside them', async () => {
  const engine = world.first.client(PolicyEngine, adminKey)
  const reported = { policyId: 'dlp/scan', severity: PolicySeverity.WARNING, message: 'seen in a bucket' }
  const ids: string[] = []
  for (let count = 0; count < 3; count += 1) ids.push((await engine.reportViolation(reported)).violationId)
  const seen: string[] = []
  let pageToken = ''
  do {
    const filter = { policyId: 'dlp/scan', severity: PolicySeverity.WARNING, pageSize: 2, pageToken }
    const page = await world.policies().listPolicyViolations(filter)
    for (const violation of page.violations) {
      expect(violation).toMatchObject({ outcome: PolicyOutcome.REPORTED, reportedBy: 'administrator' })
      seen.push(violation.id)
    }
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  expect(seen).toEqual(ids.toReversed())
  const none = await world.policies().listPolicyViolations({ policyId: 'dlp/scan', severity: PolicySeverity.CRITICAL })
  expect(none.violations).toEqual([])
})
