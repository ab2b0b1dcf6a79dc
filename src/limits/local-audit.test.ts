import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { admission, claim, period, settlement, unknownCall } from './conformance-support.ts'
import { readLocalLimits } from './local-audit.ts'
import { LocalFolders } from './local-support.ts'

const folders = new LocalFolders()
afterEach(() => folders.clear())

it('holds what the log of a process that died holds: open calls, events with their answers, corrections', async () => {
  const folder = await folders.make()
  const limits = await folders.start(folder)
  const first = unknownCall()
  await limits.settle(first)
  const batch = await limits.usageLog.read(1, 1_000, new AbortController().signal)
  await batch.acknowledge()
  const answered = admission([{ limit: period({ capacity: 9 }), amount: 4 }], { claim: claim() })
  await limits.admit(answered)
  const open = admission([])
  await limits.admit(open)
  const settled = settlement(answered, [3], Buffer.from('an\nanswer'))
  await limits.settle(settled)
  const corrections = [unknownCall().event, unknownCall().event]
  await limits.correct({ events: corrections, counters: [] })
  expect(await readLocalLimits(await folders.crash(folder))).toEqual({
    counters: undefined,
    reservations: [{ event: open.ifAbandoned, holds: [] }],
    events: [
      { event: first.event, acknowledged: true },
      ...[settled.event, ...corrections].map((event) => ({ event, acknowledged: false })),
    ],
    unreadable: 0,
  })
})

it('is empty where no folder is', async () => {
  const reading = await readLocalLimits(join(await folders.make(), 'none'))
  expect(reading).toEqual({ counters: undefined, reservations: [], events: [], unreadable: 0 })
})
