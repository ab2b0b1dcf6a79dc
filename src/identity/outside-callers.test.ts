import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { createOutsideCallers, type OutsideUser } from './outside-callers.ts'
import type { Caller } from './principal.ts'
import type { IdentityClaims } from './token-claims.ts'

const issuer = 'https://id.example/realm'
const consumers = new Map<string, { id: string; organizationId: string; status: 'active' | 'suspended' }>([
  ['c1', { id: 'c1', organizationId: 'o1', status: 'active' }],
  ['c2', { id: 'c2', organizationId: 'o1', status: 'suspended' }],
])
const user: OutsideUser = { status: 'active', roles: ['consumer'], consumerId: 'c1', organizationId: 'o1' }
const nothing: IdentityClaims = { roles: [], consumerId: undefined, organizationId: undefined }

function callerOf(claims: Partial<IdentityClaims>, options: { user?: OutsideUser; trustClaims?: boolean }): Caller {
  const callers = createOutsideCallers({
    findUser: () => options.user,
    findConsumer: (id) => consumers.get(id),
    trustClaims: options.trustClaims ?? false,
    log: pino({ level: 'silent' }),
  })
  return callers({ issuer, subject: 'alice', claims: { ...nothing, ...claims } })
}

describe('a user', () => {
  it('is what the control plane says, whatever the token says', () => {
    const claims = { roles: ['admin'], consumerId: 'c9', organizationId: 'o9' }
    expect(callerOf(claims, { user, trustClaims: true })).toEqual({
      kind: 'user',
      subject: 'user:https://id.example/realm|alice',
      roles: ['consumer'],
      consumerId: 'c1',
      organizationId: 'o1',
      keyId: undefined,
    })
  })

  const refused: [string, string, OutsideUser | undefined][] = [
    ['USER_INACTIVE', 'that is suspended', { ...user, status: 'suspended' }],
    ['USER_INACTIVE', 'that is closed', { ...user, status: 'closed' }],
    ['CONSUMER_INACTIVE', 'of a suspended consumer', { ...user, consumerId: 'c2' }],
    ['USER_UNKNOWN', 'that nobody added', undefined],
  ]
  it.each(refused)('is refused with %s: one %s', (reason, _, found) => {
    const options = found === undefined ? {} : { user: found }
    expect(() => callerOf({ roles: ['admin'] }, options)).toThrow(expect.objectContaining({ reason }))
  })

  it('that is suspended stays out where claims are trusted', () => {
    const options = { user: { ...user, status: 'suspended' as const }, trustClaims: true }
    expect(() => callerOf({ roles: ['admin'] }, options)).toThrow(expect.objectContaining({ reason: 'USER_INACTIVE' }))
  })
})

describe('claims that are trusted', () => {
  it('give roles that exist here, and the organization of the consumer', () => {
    const claims = { roles: ['consumer', 'offline_access', 'toString', '__proto__'], consumerId: 'c1' }
    expect(callerOf(claims, { trustClaims: true })).toMatchObject({
      roles: ['consumer'],
      consumerId: 'c1',
      organizationId: 'o1',
    })
  })

  it('may name an organization and no consumer', () => {
    const caller = callerOf({ roles: ['admin'], organizationId: 'o7' }, { trustClaims: true })
    expect(caller).toMatchObject({ roles: ['admin'], consumerId: undefined, organizationId: 'o7' })
  })

  it.each([
    ['TOKEN_CONSUMER', 'a consumer that does not exist', { consumerId: 'c9' }],
    ['TOKEN_CONSUMER', 'a consumer of another organization', { consumerId: 'c1', organizationId: 'o2' }],
    ['CONSUMER_INACTIVE', 'a suspended consumer', { consumerId: 'c2' }],
  ])('are refused with %s: %s', (reason, _, claims) => {
    expect(() => callerOf(claims, { trustClaims: true })).toThrow(expect.objectContaining({ reason }))
  })
})
