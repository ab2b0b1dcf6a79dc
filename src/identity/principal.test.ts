import { describe, expect, test } from 'vitest'
import { administrator, keyOf } from '../../test/support/invoke.ts'
import { keyScopes } from './key-scopes.ts'
import { anonymous, isRole, reaches, reachOf, roles, width } from './principal.ts'

const caller = keyOf({ id: 'mine', organizationId: 'ours' })

describe('a permission', () => {
  test('reaches as far as the widest role that holds it', () => {
    expect(reachOf(administrator, 'whatever.it.is')).toBe('all')
    expect(reachOf(caller, 'usage.read')).toBe('consumer')
    expect(reachOf({ ...caller, roles: ['consumer', 'admin'] }, 'usage.read')).toBe('all')
  })

  test.each([
    ['of nobody', anonymous],
    ['without a role', { ...caller, roles: [] }],
  ])('%s reaches nothing', (_, principal) => {
    expect(reachOf(principal, 'usage.read')).toBeUndefined()
    expect(reaches(principal, 'usage.read', { consumerId: 'mine', organizationId: 'ours' })).toBe(false)
  })

  test('of a consumer reaches that consumer, and nobody else in its organization', () => {
    expect(reaches(caller, 'usage.read', { consumerId: 'mine', organizationId: 'ours' })).toBe(true)
    expect(reaches(caller, 'usage.read', { consumerId: 'other', organizationId: 'ours' })).toBe(false)
    expect(reaches(caller, 'usage.read', { organizationId: 'ours' })).toBe(false)
    expect(reaches(caller, 'limits.write', { consumerId: 'mine', organizationId: 'ours' })).toBe(false)
  })

  test('reaches nothing with a key that is narrowed to others, and as far as before with one that has it', () => {
    const scopes = keyScopes({ services: [], permissions: ['usage.read'], models: [] })
    expect(reachOf({ ...caller, scopes }, 'usage.read')).toBe('consumer')
    expect(reachOf({ ...caller, scopes }, 'quota.read')).toBeUndefined()
    // Also where no roles are looked at (ENABLE_RBAC=false).
    expect(reachOf({ ...caller, scopes, roles: ['admin'] }, 'quota.read')).toBeUndefined()
    const others = keyScopes({ services: ['chat'], permissions: [], models: [] })
    expect(reachOf({ ...caller, scopes: others }, 'quota.read')).toBe('consumer')
  })

  test('of somebody without consumer and organization reaches nothing that has none', () => {
    const lost = { ...caller, consumerId: undefined, organizationId: undefined }
    expect(reaches(lost, 'usage.read', { consumerId: undefined, organizationId: undefined })).toBe(false)
  })
})

describe('a role', () => {
  const names = Object.keys(roles).filter(isRole)

  test.each(names)('gives no role that reaches further than it does: %s', (name) => {
    for (const given of roles[name].grants)
      expect(width[roles[given].reach]).toBeLessThanOrEqual(width[roles[name].reach])
  })

  test('holds everything only as admin', () => {
    expect(names.filter((name) => roles[name].permissions.has('*'))).toEqual(['admin'])
  })
})
