import { describe, expect, it, onTestFinished } from 'vitest'
import type { Scene } from './conformance-scene.ts'
import { unknownCall } from './conformance-support.ts'

/** Every event comes out at least once, and stays until it is acknowledged. */
export function usageLogConformance(scene: () => Scene): void {
  async function settleSome(count: number): Promise<string[]> {
    const calls = Array.from({ length: count }, () => unknownCall())
    await Promise.all(calls.map((call) => scene().limits.settle(call)))
    return calls.map((call) => call.event.id).sort()
  }

  describe('usage log', () => {
    it('delivers every event once to readers that share the work, and forgets what is acknowledged', async () => {
      const ids = await settleSome(40)
      expect(await scene().limits.usageLog.backlog()).toBe(40)
      const { limits, other } = scene()
      const both = await Promise.all([scene().drain(40), scene().drain(40, other)])
      const found = both.flat().map((event) => event.id)
      expect(found.sort()).toEqual(ids)
      expect(await limits.usageLog.backlog()).toBe(0)
      expect(await scene().drain()).toEqual([])
    })

    it('never returns more than asked for', async () => {
      await settleSome(7)
      const first = await scene().limits.usageLog.read(3, 5_000, AbortSignal.timeout(20_000))
      expect(first.size).toBeGreaterThanOrEqual(1)
      expect(first.size).toBeLessThanOrEqual(3)
      expect(first.events()).toHaveLength(first.size)
      await first.acknowledge()
      expect(await scene().drain()).toHaveLength(7 - first.size)
    })

    it('delivers again what a reader that died did not acknowledge', async () => {
      const ids = await settleSome(5)
      const lost: string[] = []
      await expect
        .poll(async () => {
          const batch = await scene().limits.usageLog.read(10, 100, AbortSignal.timeout(20_000))
          lost.push(...batch.events().map((event) => event.id))
          return new Set(lost).size
        })
        .toBe(5)
      const found = new Set<string>()
      await expect
        .poll(
          async () => {
            for (const event of await scene().drain(undefined, scene().other)) found.add(event.id)
            return [...found].sort()
          },
          { timeout: 20_000 },
        )
        .toEqual(ids)
      await expect.poll(() => scene().other.usageLog.backlog()).toBe(0)
    })

    it('wakes a waiting reader when an event comes, and lets it go when its signal aborts', async () => {
      const { usageLog } = scene().limits
      const stop = new AbortController()
      onTestFinished(() => stop.abort())
      const waiting = usageLog.read(10, 60_000, stop.signal)
      const [id] = await settleSome(1)
      const batch = await waiting
      expect(batch.events().map((event) => event.id)).toEqual([id])
      await batch.acknowledge()
      const idle = usageLog.read(10, 60_000, stop.signal)
      stop.abort()
      expect(await idle).toMatchObject({ size: 0 })
    })
  })
}
