import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { as, clientOf, type Fixture, keys, startFixture, until, wireNames } from './fixture.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
})

describe.each(wireNames)('%s', (wire) => {
  test('carries a call and its headers to the implementation and back', async () => {
    const payload = new Uint8Array(100_000).fill(7)
    let served: string | null = null
    const answer = await clientOf(fixture, wire).routeRequest(
      { serviceId: 'echo', payload },
      { ...as(keys.own), onHeader: (headers) => (served = headers.get('x-served')) },
    )
    expect(Buffer.compare(answer.responseData, payload)).toBe(0)
    expect(served).toBe('echo')
    const call = fixture.calls.at(-1)
    expect(call?.id).toBe(answer.requestId)
    expect(call?.peerAddress).toBe('127.0.0.1')
    expect(call?.principal.kind).toBe('key')
  })

  test('takes the credential from x-api-key too', async () => {
    const answer = await clientOf(fixture, wire).checkQuota({ serviceId: 's' }, { headers: { 'x-api-key': keys.own } })
    expect(answer.limit).toBe(100_000n)
  })

  test('leaves no call behind', async () => {
    await until(() => fixture.server.activeCalls() === 0)
  })
})
