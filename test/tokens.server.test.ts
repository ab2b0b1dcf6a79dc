import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { Role, UserService, UserStatus } from '../gen/marketplace/v1/users_pb.ts'
import { eventually } from './support/eventually.ts'
import { at, parseJson } from './support/json.ts'
import { chat } from './support/payloads.ts'
import { refusal } from './support/refusal.ts'
import { startTokenIssuer, type TokenIssuer } from './support/token-issuer.ts'
import { demoFacts, startTollgate, type Tollgate } from './support/tollgate.ts'
import { run } from './support/tools.ts'

/** A gate that trusts one issuer, which is a server of its own: discovery, two key sets, rotation, outage. */
let issuer: TokenIssuer
let tollgate: Tollgate
let facts: Record<string, string>
let userId: string
beforeAll(async () => {
  issuer = await startTokenIssuer()
  const env = { JWT_ISSUER: issuer.issuer, JWT_AUDIENCE: 'gate' }
  tollgate = await startTollgate({ command: 'dev', env })
  facts = await demoFacts(tollgate)
})
afterAll(async () => {
  await tollgate?.stop()
  await issuer?.close()
})

function route(token: string): Promise<{ requestId: string }> {
  const consumption = tollgate.client(ConsumptionService, token)
  return consumption.routeRequest({ serviceId: facts.serviceId ?? '', payload: chat('hello') })
}

/** A good token with the signature of another good one. */
async function swapped(): Promise<string> {
  const [one, other] = await Promise.all([issuer.sign({ jti: '1' }), issuer.sign({ jti: '2' })])
  return [...one.split('.').slice(0, 2), other.split('.').at(-1)].join('.')
}

async function tokenHealth(): Promise<unknown> {
  const page = await fetch(`${tollgate.address}/health/detailed`)
  return at(parseJson(await page.text()), 'components', 'tokens')
}

test('a user calls with a token once it was added, on every wire', async () => {
  const token = await issuer.sign()
  expect(await refusal(route(token))).toMatchObject({ code: 7, reason: 'USER_UNKNOWN' })
  const users = tollgate.client(UserService, facts.adminKey ?? '')
  const user = { issuer: issuer.issuer, subject: 'alice', roles: [Role.CONSUMER], consumerId: facts.consumerId ?? '' }
  userId = (await users.createUser({ user })).id
  expect((await route(token)).requestId).not.toBe('')
  const answer = await fetch(`${tollgate.address}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: chat('hello'),
  })
  expect(answer.status).toBe(200)
  const { code, stdout } = await run('buf', [
    'curl',
    ...['--http2-prior-knowledge', '--protocol', 'grpc', '-H', `authorization: Bearer ${token}`],
    ...['-d', JSON.stringify({ serviceId: facts.serviceId })],
    `${tollgate.address}/marketplace.v1.ConsumptionService/CheckQuota`,
  ])
  expect({ code, tier: at(parseJson(stdout), 'tier') }).toEqual({ code: 0, tier: 'enterprise' })
})

describe('refuses, with a reason of its own,', () => {
  const now = Math.floor(Date.now() / 1000)
  const tokens: [string, string, () => string | Promise<string>][] = [
    ['TOKEN_EXPIRED', 'an expired token', () => issuer.sign({ exp: now - 60 })],
    ['TOKEN_NOT_YET_VALID', 'one of the future', () => issuer.sign({ nbf: now + 3600, exp: now + 7200 })],
    ['TOKEN_AUDIENCE', 'one for another audience', () => issuer.sign({ aud: 'billing' })],
    ['TOKEN_ISSUER', 'one of another issuer', () => issuer.sign({ iss: 'https://elsewhere.example' })],
    ['TOKEN_UNSIGNED', '"alg": "none"', () => issuer.unsigned()],
    ['TOKEN_ALGORITHM', 'key confusion', () => issuer.confused()],
    ['TOKEN_SIGNATURE', 'the signature of another one', () => swapped()],

    ['TOKEN_SUBJECT', 'one without a subject', () => issuer.sign({ sub: undefined })],
    ['TOKEN_MALFORMED', 'half a token', async () => (await issuer.sign()).slice(0, 40)],
    ['CREDENTIAL_INVALID', 'what is no token at all', () => 'sk-something'],
  ]
  test.each(tokens)('%s: %s', async (reason, _, make) => {
    expect(await refusal(route(await make()))).toMatchObject({ code: 16, reason })
  })

  test('TOKEN_EXPIRED also where HTTP has a status', async () => {
    const answer = await fetch(`${tollgate.address}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await issuer.sign({ exp: now - 60 })}` },
      body: chat('hello'),
    })
    expect(answer.status).toBe(401)
    expect(at(parseJson(await answer.text()), 'error', 'code')).toBe('token_expired')
  })
})

test('a rotation of keys is followed at once, and a withdrawn key is refused', async () => {
  const before = await issuer.sign({ jti: 'before' })
  await route(before)
  await issuer.rotate()
  const rotated = await issuer.sign()
  // What asked for a key that does not exist a moment ago delays the look at the new set by 2 s at most.
  await eventually(() => route(rotated))
  await route(before)
  await issuer.rotate('ES256')
  issuer.withdrawOld()
  const renewed = await issuer.sign()
  await eventually(() => route(renewed))
  expect(await refusal(route(before))).toMatchObject({ code: 16, reason: 'TOKEN_KEY_UNKNOWN' })
})

test('calls go on while the issuer is away, and unknown keys wait for it', async () => {
  issuer.answerWith({ status: 503 })
  await route(await issuer.sign({ jti: 'never seen before' }))
  await issuer.rotate()
  const rotated = await issuer.sign()
  await eventually(async () => (await refusal(route(rotated))).reason === 'TOKEN_KEYS_UNAVAILABLE')
  expect(await refusal(route(rotated))).toMatchObject({ code: 14, reason: 'TOKEN_KEYS_UNAVAILABLE' })
  expect(await tokenHealth()).toMatchObject({ status: 'degraded', detail: expect.stringContaining('status 503') })
  issuer.answerWith(undefined)
  await eventually(() => route(rotated))
  expect(await tokenHealth()).toMatchObject({ status: 'ok' })
})

test('a suspended user is refused with the token that was good', async () => {
  const token = await issuer.sign()
  await route(token)
  const users = tollgate.client(UserService, facts.adminKey ?? '')
  const user = { id: userId, status: UserStatus.SUSPENDED }
  await users.updateUser({ user, updateMask: { paths: ['status'] }, reason: 'left the company' })
  await eventually(async () => (await refusal(route(token))).reason === 'USER_INACTIVE')
})
