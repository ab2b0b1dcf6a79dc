import { expect } from 'vitest'
import type { UsageEvent } from '../metering/usage-event.ts'
import { admission, drain, type FakeLedger, type LimitsFixture, settlement } from './conformance-support.ts'
import type { Admission, Limit, LimitCost, Limits, Settled } from './limits.ts'

/** One test's store and ledger, and what tests do with them again and again. */
export class Scene {
  readonly limits: Limits
  readonly other: Limits
  readonly ledger: FakeLedger
  readonly #fixture: LimitsFixture

  constructor(fixture: LimitsFixture, ledger: FakeLedger) {
    this.limits = fixture.limits
    this.other = fixture.other
    this.ledger = ledger
    this.#fixture = fixture
  }

  close(): Promise<void> {
    return this.#fixture.close()
  }

  async remaining(...of: Limit[]): Promise<number[]> {
    return (await this.limits.read(of)).map((state) => state.remaining)
  }

  /** A new call, which must be admitted. */
  async admitted(costs: readonly LimitCost[], changes: Partial<Admission> = {}): Promise<Admission> {
    const call = admission(costs, changes)
    expect(await this.limits.admit(call)).toMatchObject({ outcome: 'admitted' })
    return call
  }

  settle(call: Admission, actual: readonly number[], answer?: Uint8Array): Promise<Settled> {
    return this.limits.settle(settlement(call, actual, answer))
  }

  /** A new call that was recorded as abandoned, because its lease ran out. */
  async abandoned(costs: readonly LimitCost[], changes: Partial<Admission> = {}): Promise<Admission> {
    const call = await this.admitted(costs, { ...changes, leaseMs: 1 })
    await expect.poll(() => this.limits.usageLog.sweep(), { timeout: 10_000 }).toBe(1)
    return call
  }

  /** What comes out of the usage log, given to the ledger; `enough` entries, or all. */
  drain(enough?: number, reader: Limits = this.limits): Promise<UsageEvent[]> {
    const { quietMs = 1_200 } = this.#fixture
    return drain(reader.usageLog, this.ledger, enough === undefined ? { quietMs } : { enough, quietMs })
  }
}

/** As many of each limit as its amount says. */
export function costs(...pairs: readonly (readonly [limit: Limit, amount: number])[]): LimitCost[] {
  return pairs.map(([limit, amount]) => ({ limit, amount }))
}
