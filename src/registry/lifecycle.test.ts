import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Action, firstStatuses, type Lifecycle, transition, transitions } from './lifecycle.ts'
import type { ServiceStatus } from './records.ts'

const statuses: readonly ServiceStatus[] = ['pending_approval', 'active', 'deprecated', 'suspended', 'retired']

const action: fc.Arbitrary<Action> = fc.oneof(
  fc.constant<Action>({ kind: 'activate' }),
  fc.record<Action & { kind: 'deprecate' }>({
    kind: fc.constant('deprecate'),
    sunsetAtMs: fc.option(fc.nat(), { nil: undefined }),
    message: fc.string(),
    successor: fc.constantFrom('', 'b'),
  }),
  fc.record<Action & { kind: 'suspend' }>({ kind: fc.constant('suspend'), reason: fc.string({ minLength: 1 }) }),
  fc.constant<Action>({ kind: 'resume' }),
  fc.record<Action & { kind: 'retire' }>({
    kind: fc.constant('retire'),
    reason: fc.string(),
    successor: fc.constantFrom('', 'c'),
  }),
)

function begun(status: ServiceStatus): Lifecycle {
  return { status, statusSinceMs: 0, statusReason: '', deprecation: undefined }
}

/** A life by chance; what is refused leaves it as it is. */
const lives = fc.tuple(fc.constantFrom(...firstStatuses), fc.array(action, { maxLength: 12 }))

function live([first, actions]: readonly [ServiceStatus, readonly Action[]], see: (step: Step) => void): Lifecycle {
  let life = begun(first)
  for (const [index, action] of actions.entries()) {
    const before = life
    try {
      life = transition(before, action, index + 1)
    } catch (error) {
      expect(error).toMatchObject({ reason: 'SERVICE_STATUS_CONFLICT', metadata: { status: before.status } })
    }
    see({ before, action, after: life, atMs: index + 1 })
  }
  return life
}

interface Step {
  readonly before: Lifecycle
  readonly action: Action
  readonly after: Lifecycle
  readonly atMs: number
}

describe('whatever is done to a service', () => {
  test('it moves as the table says, and stays where the table says nothing', () => {
    fc.assert(
      fc.property(lives, (life) => {
        live(life, ({ before, action, after }) => {
          const goals = transitions[action.kind][before.status]
          if (goals === undefined) expect(after).toBe(before)
          else expect(goals).toContain(after.status)
        })
      }),
    )
  })

  test('it says why it is suspended or retired, and nothing else', () => {
    fc.assert(
      fc.property(lives, (life) => {
        live(life, ({ before, action, after }) => {
          if (after === before) return
          expect(after.statusReason).toBe('reason' in action ? action.reason : '')
        })
      }),
    )
  })

  test('a deprecated service has a deprecation, an active one has none', () => {
    fc.assert(
      fc.property(lives, (life) => {
        live(life, ({ after }) => {
          if (after.status === 'deprecated') expect(after.deprecation).toBeDefined()
          if (after.status === 'active') expect(after.deprecation).toBeUndefined()
        })
      }),
    )
  })

  test('its status has a time that moves with the status only', () => {
    fc.assert(
      fc.property(lives, (life) => {
        live(life, ({ before, after, atMs }) => {
          expect(after.statusSinceMs).toBe(after.status === before.status ? before.statusSinceMs : atMs)
        })
      }),
    )
  })
})

test('suspended and resumed, a service is what it was', () => {
  const said = { sunsetAtMs: 9, message: 'm', successor: 's' }
  for (const before of [begun('active'), transition(begun('active'), { kind: 'deprecate', ...said }, 1)]) {
    const suspended = transition(before, { kind: 'suspend', reason: 'leak' }, 2)
    expect(suspended).toMatchObject({ status: 'suspended', statusReason: 'leak' })
    const resumed = transition(suspended, { kind: 'resume' }, 3)
    expect(resumed).toEqual({ ...before, statusSinceMs: 3 })
  }
})

test('deprecated again, a service keeps the time of the first time, and says what it was told last', () => {
  const first = transition(begun('active'), { kind: 'deprecate', sunsetAtMs: 9, message: 'm', successor: 's' }, 1)
  const again = { kind: 'deprecate', sunsetAtMs: undefined, message: '', successor: 't' } as const
  const { deprecation } = transition(first, again, 2)
  expect(deprecation).toEqual({ atMs: 1, sunsetAtMs: undefined, message: '', successor: 't' })
  expect(transition(first, { kind: 'resume' }, 3)).toMatchObject({ status: 'active', deprecation: undefined })
})

test('a retired service names its successor, and nothing brings it back', () => {
  const retired = transition(begun('active'), { kind: 'retire', reason: 'r', successor: 's' }, 1)
  expect(retired).toMatchObject({ status: 'retired', statusReason: 'r', deprecation: { successor: 's' } })
  for (const goals of Object.values(transitions)) expect(goals.retired).toBeUndefined()
})

test('every status but the last can be left, and every one but the first ones can be come to', () => {
  const reached = Object.values(transitions).flatMap((goals) => Object.values(goals).flat())
  expect(statuses.filter((status) => !reached.includes(status))).toEqual(['pending_approval'])
})
