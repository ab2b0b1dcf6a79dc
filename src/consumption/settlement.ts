import { setTimeout as delay } from 'node:timers/promises'
import type { Limits, Settled, Settlement } from '../limits/limits.ts'

/** Settlement is tried again this often: a settlement that failed half-way is a no-op the second time. */
const attempts = 5
const pauseMs = 50

/** After these attempts the caller is told, and settlement goes on at this pace, for so many calls at once. */
const latePauseMs = 500
const maxLate = 10_000

export interface Settler {
  /** Settles while the caller waits; throws what the limits throw when all attempts failed. */
  settle(settlement: Settlement): Promise<Settled>
  /**
   * Goes on after the caller was told, because what was used is known exactly here, and the lease would record the
   * reservation instead. Undefined when the lease ended first. Holds up no shutdown: what is left then is recorded as
   * abandoned.
   */
  settleLate(settlement: Settlement, untilMs: number): Promise<Settled | undefined>
}

/** As setTimeout of node:timers/promises. */
export type Wait = (ms: number, value?: undefined, options?: { readonly ref: boolean }) => Promise<void>

export function createSettler(limits: Pick<Limits, 'settle'>, now: () => number, wait: Wait = delay): Settler {
  let late = 0

  async function settleAgain(settlement: Settlement, failed: number, error: unknown): Promise<Settled> {
    if (failed === attempts) throw error
    await wait(pauseMs * 2 ** failed)
    return await settleFrom(settlement, failed + 1)
  }

  function settleFrom(settlement: Settlement, attempt: number): Promise<Settled> {
    return limits.settle(settlement).catch((error: unknown) => settleAgain(settlement, attempt, error))
  }

  return {
    settle: (settlement) => settleFrom(settlement, 1),

    async settleLate(settlement, untilMs) {
      if (late >= maxLate) return undefined
      late += 1
      try {
        while (now() < untilMs) {
          await wait(latePauseMs, undefined, { ref: false })
          // Tried again until the lease ends; the first failure was told.
          const settled = await limits.settle(settlement).catch(() => undefined)
          if (settled !== undefined) return settled
        }
        return undefined
      } finally {
        late -= 1
      }
    },
  }
}
