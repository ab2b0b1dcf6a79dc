import { describe, expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { type CredentialGuard, createCredentialGuard, networkOf } from './credential-guard.ts'

const wrong = new TollgateError('CREDENTIAL_INVALID', 'wrong')

/** A guard that allows 10 a minute and knows the credential "known", at a time that the test sets. */
function setup(maxAddresses = 100) {
  const state = { nowMs: 1_000_000 }
  const isKnown = (credential: string) => credential === 'known'
  return { state, guard: createCredentialGuard({ perMinute: 10, isKnown, clock: () => state.nowMs, maxAddresses }) }
}

/** A wrong credential from 10.0.0.1, from its arrival to its refusal. */
function attempt(guard: CredentialGuard, credential: string): void {
  guard.settled(guard.check(credential, '10.0.0.1'), credential, '10.0.0.1', wrong)
}

describe('an address that sent too many wrong credentials', () => {
  test('is refused before the next one is looked at, and told when to come again', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) attempt(guard, 'guess')
    expect(() => guard.check('guess', '10.0.0.1')).toThrow(
      expect.objectContaining({ reason: 'CREDENTIAL_FAILURES', retryAfterMs: 6_000 }),
    )
  })

  test('has no more looked at when they come all at once', () => {
    const { guard } = setup()
    guard.settled('none', 'guess', '10.0.0.1', wrong)
    for (let i = 0; i < 9; i++) expect(guard.check(`guess ${i}`, '10.0.0.1')).toBe('charged')
    expect(() => guard.check('guess', '10.0.0.1')).toThrow()
  })

  test('is forgotten when a minute has passed', () => {
    const { guard, state } = setup()
    guard.settled('none', 'guess', '10.0.0.1', wrong)
    state.nowMs += 60_000
    expect(guard.check('guess', '10.0.0.1')).toBe('none')
    expect(guard.size()).toBe(0)
  })

  test('is still served with a credential that was found good before', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) guard.settled('none', 'guess', '10.0.0.1', wrong)
    expect(() => guard.check('known', '10.0.0.1')).not.toThrow()
  })

  test('does not cost another address anything', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) guard.settled('none', 'guess', '10.0.0.1', wrong)
    expect(() => guard.check('guess', '10.0.0.2')).not.toThrow()
  })

  test('may try again when time has passed, as often as that brought back', () => {
    const { guard, state } = setup()
    for (let i = 0; i < 10; i++) guard.settled('none', 'guess', '10.0.0.1', wrong)
    state.nowMs += 6_000
    attempt(guard, 'guess')
    expect(() => guard.check('guess', '10.0.0.1')).toThrow()
  })
})

describe('a right credential that nobody used here before, from an address that sent a wrong one,', () => {
  test('is looked at however often it comes at once, and costs nothing in the end', () => {
    const { guard } = setup()
    guard.settled('none', 'guess', '10.0.0.1', wrong)
    const charges = Array.from({ length: 1_000 }, () => guard.check('right', '10.0.0.1'))
    expect(charges[0]).toBe('charged')
    expect(new Set(charges.slice(1))).toEqual(new Set(['shared']))
    for (const charge of charges) guard.settled(charge, 'right', '10.0.0.1')
    for (let i = 0; i < 9; i++) attempt(guard, `guess ${i}`)
    expect(() => guard.check('guess', '10.0.0.1')).toThrow()
  })

  test('is charged again once it was looked at, should it be wrong now', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) attempt(guard, 'guess')
    expect(() => guard.check('guess', '10.0.0.1')).toThrow()
  })
})

test.each(['CREDENTIAL_EXPIRED', 'CREDENTIAL_REVOKED', 'CREDENTIAL_MISSING', 'STORAGE_UNAVAILABLE'] as const)(
  '%s is no guess',
  (reason) => {
    const { guard } = setup()
    for (let i = 0; i < 20; i++) guard.settled('none', 'guess', '10.0.0.1', new TollgateError(reason, 'no'))
    expect(() => guard.check('guess', '10.0.0.1')).not.toThrow()
  },
)

test('a limit of 0 refuses nobody', () => {
  const guard = createCredentialGuard({ perMinute: 0, isKnown: () => false, clock: () => 0 })
  for (let i = 0; i < 1_000; i++) guard.settled('none', 'guess', '10.0.0.1', wrong)
  expect(() => guard.check('guess', '10.0.0.1')).not.toThrow()
})

test('holds no more addresses than its ceiling', () => {
  const { guard } = setup(100)
  for (let i = 0; i < 10_000; i++) guard.settled('none', 'guess', `10.0.${i >> 8}.${i & 255}`, wrong)
  expect(guard.size()).toBeLessThanOrEqual(100)
})

test.each([
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
  ['2001:db8::6', '2001:db8:0:0'],
  ['2001:db8:1:2::', '2001:db8:1:2'],
  ['::1', '0:0:0:0'],
  ['64:ff9b::10.0.0.1', '64:ff9b:0:0'],
  ['10.0.0.1', '10.0.0.1'],
  ['', ''],
])('the network of %s is %s', (address, network) => {
  expect(networkOf(address)).toBe(network)
})
