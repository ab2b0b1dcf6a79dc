import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Lifecycle } from './lifecycle.ts'
import { type StatedLife, stepsTo } from './lifecycle-steps.ts'
import type { ServiceStatus } from './records.ts'

const statuses: readonly ServiceStatus[] = ['pending_approval', 'active', 'deprecated', 'suspended', 'retired']
const all = { resumes: true, activates: true }
const said = { sunsetAtMs: 9, message: 'm', successor: 's' }

const life = (status: ServiceStatus, deprecation?: Lifecycle['deprecation']): Lifecycle => ({
  status,
  statusSinceMs: 0,
  statusReason: '',
  deprecation: deprecation ?? (status === 'deprecated' ? { atMs: 1, ...said } : undefined),
})
const stated = (status: ServiceStatus): StatedLife => ({
  status,
  reason: 'r',
  deprecation: status === 'deprecated' ? said : undefined,
})
const kinds = (from: Lifecycle, to: StatedLife, leave = all): string[] =>
  stepsTo(from, to, leave, 5).actions.map(({ kind }) => kind)

describe('the steps to where a service is said to stand', () => {
  test.each<[ServiceStatus, ServiceStatus, string[]]>([
    ['active', 'deprecated', ['deprecate']],
    ['active', 'suspended', ['suspend']],
    ['active', 'pending_approval', ['suspend']],
    ['active', 'retired', ['retire']],
    ['deprecated', 'active', ['resume']],
    ['suspended', 'active', ['resume']],
    ['suspended', 'deprecated', ['resume', 'deprecate']],
    ['suspended', 'retired', ['retire']],
    ['pending_approval', 'active', ['activate']],
    ['pending_approval', 'deprecated', ['activate', 'deprecate']],
    ['pending_approval', 'suspended', []],
    ['retired', 'active', []],
  ])('from %s to %s', (from, to, expected) => {
    expect(kinds(life(from), stated(to))).toEqual(expected)
  })

  test('undo neither what an operator suspended, nor what nobody approved', () => {
    expect(kinds(life('suspended'), stated('active'), { resumes: false, activates: true })).toEqual([])
    expect(kinds(life('pending_approval'), stated('active'), { resumes: true, activates: false })).toEqual([])
  })

  test('end a suspension and a deprecation with it', () => {
    expect(kinds(life('suspended', { atMs: 1, ...said }), stated('active'))).toEqual(['resume', 'resume'])
  })

  test('lead nowhere when they were made, from wherever and with whatever leave', () => {
    const one = fc.constantFrom(...statuses)
    const deprecation = fc.option(
      fc.record({
        atMs: fc.nat(),
        sunsetAtMs: fc.option(fc.nat(), { nil: undefined }),
        message: fc.string(),
        successor: fc.string(),
      }),
      { nil: undefined },
    )
    const leave = fc.record({ resumes: fc.boolean(), activates: fc.boolean() })
    fc.assert(
      fc.property(one, deprecation, one, deprecation, leave, (from, before, status, after, may) => {
        const to: StatedLife = { status, reason: 'r', deprecation: after && { ...after } }
        const reached = stepsTo(life(from, before), to, may, 5).life
        expect(stepsTo(reached, to, may, 6).actions).toEqual([])
      }),
    )
  })
})
