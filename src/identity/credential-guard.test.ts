import { describe, expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { createCredentialGuard, networkOf } from './credential-guard.ts'

const wrong = new TollgateError('CREDENTIAL_INVALID', 'wrong')

/** A guard that allows 10 a minute and knows the credential "known", at a time that the test sets. */
function setup(maxAddresses = 100) {
  const state = { nowMs: 1_000_000 }
  const isKnown = (credential: string) => credential === 'known'
  return { state, guard: createCredentialGuard({ perMinute: 10, isKnown, clock: () => state.nowMs, maxAddresses }) }
}

describe('an address that sent too many wrong credentials', () => {
  test('is refused before the next one is looked at, and told when to come again', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) guard.refused(wrong, '10.0.0.1', guard.check('guess', '10.0.0.1'))
    expect(() => guard.check('guess', '10.0.0.1')).toThrow(
      expect.objectContaining({ reason: 'CREDENTIAL_FAILURES', retryAfterMs: 6_000 }),
    )
  })

  test('has no more looked at when they come all at once', () => {
    const { guard } = setup()
    guard.refused(wrong, '10.0.0.1', false)
    for (let i = 0; i < 9; i++) expect(guard.check('guess', '10.0.0.1')).toBe(true)
    expect(() => guard.check('guess', '10.0.0.1')).toThrow()
  })

  test('is forgotten when a minute has passed', () => {
    const { guard, state } = setup()
    guard.refused(wrong, '10.0.0.1', false)
    state.nowMs += 60_000
    expect(guard.check('guess', '10.0.0.1')).toBe(false)
    expect(guard.size()).toBe(0)
  })

  test('is still served with a credential that was found good before', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) guard.refused(wrong, '10.0.0.1', false)
    expect(() => guard.check('known', '10.0.0.1')).not.toThrow()
  })

  test('does not cost another address anything', () => {
    const { guard } = setup()
    for (let i = 0; i < 10; i++) guard.refused(wrong, '10.0.0.1', false)
    expect(() => guard.check('guess', '10.0.0.2')).not.toThrow()
  })

  test('may try again when time has passed, as often as that brought back', () => {
    const { guard, state } = setup()
    for (let i = 0; i < 10; i++) guard.refused(wrong, '10.0.0.1', false)
    state.nowMs += 6_000
    guard.refused(wrong, '10.0.0.1', guard.check('guess', '10.0.0.1'))
    expect(() => guard.check('guess', '10.0.0.1')).toThrow()
  })
})

test.each(['CREDENTIAL_EXPIRED', 'CREDENTIAL_REVOKED', 'CREDENTIAL_MISSING', 'STORAGE_UNAVAILABLE'] as const)(
  '%s is no guess',
  (reason) => {
    const { guard } = setup()
    for (let i = 0; i < 20; i++) guard.refused(new TollgateError(reason, 'no'), '10.0.0.1', false)
    expect(() => guard.check('guess', '10.0.0.1')).not.toThrow()
  },
)

test('a limit of 0 refuses nobody', () => {
  const guard = createCredentialGuard({ perMinute: 0, isKnown: () => false, clock: () => 0 })
  for (let i = 0; i < 1_000; i++) guard.refused(wrong, '10.0.0.1', false)
  expect(() => guard.check('guess', '10.0.0.1')).not.toThrow()
})

test('holds no more addresses than its ceiling', () => {
  const { guard } = setup(100)
  for (let i = 0; i < 10_000; i++) guard.refused(wrong, `10.0.${i >> 8}.${i & 255}`, false)
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
