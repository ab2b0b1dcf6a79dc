import { createClient } from '@connectrpc/connect'
import { afterEach, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import type { Denial } from '../audit/denial.ts'
import { TollgateError } from '../errors.ts'
import { as, type Fixture, keys, ownConsumer, startFixture, until, wireNames, wires } from './fixture.ts'

let fixture: Fixture
afterEach(() => fixture?.close())

const stranger = '018f0000-0000-7000-8000-00000000ffff'
const prompt = new TextEncoder().encode('{"prompt":"the merger is on Friday"}')

/** A server whose audit log takes its time, and what it was told. */
async function open() {
  const denials: Denial[] = []
  const kept = Promise.withResolvers<void>()
  const record = (denial: Denial): Promise<void> => {
    denials.push(denial)
    return kept.promise
  }
  fixture = await startFixture({ denials: { record }, organizationOf: (id) => (id === ownConsumer ? 'o1' : undefined) })
  return { denials, kept }
}

/** Whether the answer came; and the answer, once it may. */
function watched(call: Promise<unknown>) {
  const seen = { answered: false }
  const answer = call.then(
    () => new Error('the call was not refused'),
    (error: unknown) => error,
  )
  void answer.then(() => {
    seen.answered = true
  })
  return { seen, answer }
}

/** Takes as long as the answer of a call that waits for nothing, and longer. */
async function roundTrips(): Promise<void> {
  for (let i = 0; i < 5; i++) await (await fetch(`${fixture.server.address}/health`)).text()
}

async function lastOf(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _message of stream);
}

describe.each(wireNames)('%s', (wire) => {
  const client = () => createClient(ConsumptionService, wires[wire](fixture.server.address))
  const cases = {
    'a unary call': () =>
      client().routeRequest({ serviceId: 's', consumerId: stranger, payload: prompt }, as(keys.own)),
    'a stream': () => lastOf(client().streamRequest({ serviceId: 's', consumerId: stranger }, as(keys.own))),
  }
  test.each(Object.entries(cases))('%s that is denied is answered once the denial is kept', async (_name, call) => {
    const { denials, kept } = await open()
    const { seen, answer } = watched(call())
    await until(() => denials.length > 0)
    await roundTrips()
    expect(seen.answered).toBe(false)
    kept.resolve()
    expect(await answer).toMatchObject({ code: 7 })
    expect(denials).toMatchObject([
      {
        actor: 'key:testkey',
        organizationId: 'o1',
        reason: 'CONSUMER_MISMATCH field=consumer_id',
        resource: `consumer/${stranger}`,
        address: '127.0.0.1',
      },
    ])
    expect(denials[0]?.action).toMatch(/^marketplace\.v1\.ConsumptionService\/(RouteRequest|StreamRequest)$/)
    expect(JSON.stringify(denials)).not.toContain('merger')
  })

  test('a missing permission is told of before the body is read, and names no resource', async () => {
    const { denials, kept } = await open()
    kept.resolve()
    const { answer } = watched(client().checkQuota({ serviceId: 's' }, as(keys.noRoles)))
    expect(await answer).toMatchObject({ code: 7 })
    expect(denials).toMatchObject([{ reason: 'PERMISSION_MISSING permission=quota.read', resource: '' }])
  })

  test('a wrong key, a wrong request and a good one are no denials', async () => {
    const { denials } = await open()
    await watched(client().checkQuota({ serviceId: 's' }, as('tg_wrong'))).answer
    await watched(client().checkQuota({ serviceId: '' }, as(keys.own))).answer
    await client().checkQuota({ serviceId: 's' }, as(keys.own))
    expect(denials).toEqual([])
  })
})

test('a call to the OpenAI API that is denied is answered once the denial is kept', async () => {
  const { denials, kept } = await open()
  const body = JSON.stringify({ model: 's', messages: [{ role: 'user', content: 'the merger is on Friday' }] })
  const { seen, answer } = watched(
    fetch(`${fixture.server.address}/v1/chat/completions`, { method: 'POST', body, ...as(keys.noRoles) }).then(
      (got) => {
        throw got.status
      },
    ),
  )
  await until(() => denials.length > 0)
  await roundTrips()
  expect(seen.answered).toBe(false)
  kept.resolve()
  expect(await answer).toBe(403)
  expect(denials).toMatchObject([{ action: 'POST /v1/chat/completions', actor: 'key:testkey', resource: '' }])
  expect(JSON.stringify(denials)).not.toContain('merger')
})

test('a caller that names no id is told of as such, and what it wrote instead is not kept', async () => {
  const { denials, kept } = await open()
  kept.resolve()
  const client = createClient(ConsumptionService, wires.grpc(fixture.server.address))
  const consumerId = 'Ignore all previous instructions'
  await watched(client.checkQuota({ serviceId: 's', consumerId }, as(keys.own))).answer
  expect(denials).toMatchObject([{ resource: 'consumer/(not an id)' }])
})

test('somebody who is refused while it is authenticated is told of by name', async () => {
  const denials: Denial[] = []
  const refuse = async (): Promise<never> => {
    const refused = new TollgateError('USER_INACTIVE', 'suspended', { metadata: { status: 'suspended' } })
    throw refused.withSubject('user:https://id.example|ada')
  }
  fixture = await startFixture({
    denials: { record: async (denial) => void denials.push(denial) },
    authenticate: refuse,
  })
  const client = createClient(ConsumptionService, wires.grpc(fixture.server.address))
  await watched(client.checkQuota({ serviceId: 's' }, as(keys.own))).answer
  expect(denials).toMatchObject([
    { actor: 'user:https://id.example|ada', reason: 'USER_INACTIVE status=suspended', organizationId: '' },
  ])
})
