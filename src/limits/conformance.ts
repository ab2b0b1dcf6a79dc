import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { admissionConformance } from './conformance-admission.ts'
import { claimConformance } from './conformance-claims.ts'
import { correctionConformance } from './conformance-corrections.ts'
import { usageLogConformance } from './conformance-log.ts'
import { Scene } from './conformance-scene.ts'
import { seedConformance } from './conformance-seeds.ts'
import { settlementConformance } from './conformance-settlement.ts'
import { FakeLedger, type LimitsFixture } from './conformance-support.ts'
import type { PeriodSeed } from './limits.ts'

export type { LimitsFixture } from './conformance-support.ts'

/**
 * What every implementation of {@link Limits} promises, as tests. `makeFixture` gives an empty store that asks this seed;
 * it must deliver again within 5 seconds what a reader gave up. Times are real, so buckets here refill slowly and
 * assertions allow for what the elapsed time refilled.
 */
export function limitsConformance(name: string, makeFixture: (seed: PeriodSeed) => Promise<LimitsFixture>): void {
  describe(`${name}: limits`, () => {
    let current: Scene | undefined
    const scene = () => {
      if (current === undefined) throw new Error('no test is running')
      return current
    }

    beforeEach(async () => {
      const ledger = new FakeLedger()
      current = new Scene(await makeFixture(ledger.seed), ledger)
    })
    afterEach(async () => {
      await current?.close()
      current = undefined
    })

    admissionConformance(scene)
    seedConformance(scene)
    settlementConformance(scene)
    correctionConformance(scene)
    claimConformance(scene)
    usageLogConformance(scene)

    it('is healthy', async () => {
      expect(await scene().limits.health()).toMatchObject({ ok: true })
    })
  })
}
