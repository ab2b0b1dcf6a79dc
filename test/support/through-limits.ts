import type { Limits } from '../../src/limits/limits.ts'

/** The same limits with methods that can be replaced. */
export function through(inner: Limits): Limits {
  return {
    admit: (admission) => inner.admit(admission),
    settle: (settlement) => inner.settle(settlement),
    correct: (correction) => inner.correct(correction),
    read: (asked) => inner.read(asked),
    usageLog: inner.usageLog,
    health: () => inner.health(),
    close: () => inner.close(),
  }
}
