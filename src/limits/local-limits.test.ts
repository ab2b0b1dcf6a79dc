import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { open, readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { limitsConformance } from './conformance.ts'
import {
  admission,
  claim,
  concurrency,
  drain,
  FakeLedger,
  period,
  settlement,
  unknownCall,
} from './conformance-support.ts'
import type { LimitCost, Limits, Settlement } from './limits.ts'
import { LocalFolders, segmentsOf } from './local-support.ts'
import { openSegmentFile, type SegmentFile } from './segment-file.ts'

const folders = new LocalFolders()

/** A call without limits that ends at once. */
async function record(limits: Limits): Promise<Settlement> {
  const call = unknownCall()
  await limits.settle(call)
  return call
}

async function eventIds(limits: Limits): Promise<string[]> {
  const ids = new Set<string>()
  while ((await limits.usageLog.backlog()) > 0) {
    const batch = await limits.usageLog.read(1_000, 100, AbortSignal.timeout(20_000))
    for (const event of batch.events()) ids.add(event.id)
    await batch.acknowledge()
  }
  return [...ids].sort()
}

afterEach(() => folders.clear())

limitsConformance('local', async (seed) => {
  const limits = await folders.start(await folders.make(), { seed, reclaimIdleMs: 300 })
  return { limits, other: limits, quietMs: 50, close: async () => undefined }
})

describe('after the process died', () => {
  let folder: string
  let limits: Limits

  beforeEach(async () => {
    folder = await folders.make()
    limits = await folders.start(folder)
  })

  async function settled(on: Limits, costs: readonly LimitCost[] = []): Promise<string> {
    const call = admission(costs)
    await on.admit(call)
    await on.settle(
      settlement(
        call,
        costs.map((cost) => cost.amount),
      ),
    )
    return call.ifAbandoned.id
  }

  it('delivers settled events again that were not acknowledged, and no others', async () => {
    const first = await settled(limits)
    expect(await eventIds(limits)).toEqual([first])
    const rest = [await settled(limits), await settled(limits)].sort()
    const next = await folders.start(await folders.crash(folder))
    expect(await eventIds(next)).toEqual(rest)
  })

  it('records calls in flight as abandoned at once, and only the first time', async () => {
    const calls = [admission([]), admission([{ limit: period({ capacity: 9 }), amount: 4 }])]
    for (const call of calls) await limits.admit(call)
    const copy = await folders.crash(folder)
    const second = await folders.start(copy)
    const batch = await second.usageLog.read(10, 1_000, AbortSignal.timeout(20_000))
    expect(batch.events()).toEqual(calls.map((call) => call.ifAbandoned))
    const third = await folders.start(await folders.crash(copy))
    expect(await third.usageLog.backlog()).toBe(2)
  })

  it('has left a record of each call that was told that it is admitted, however many come at once and how often', async () => {
    const tokens = period({ capacity: 1_000 })
    const costly = admission([{ limit: tokens, amount: 7 }])
    const calls = [costly, ...Array.from({ length: 30 }, () => admission([]))]
    const early = await settled(limits)
    const [name = ''] = await segmentsOf(folder)
    const admitted = [...calls, ...calls].map(async (call) => {
      expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
      expect(readFileSync(join(folder, name), 'utf8')).toContain(call.id)
    })
    await Promise.all(admitted)
    expect(await limits.read([tokens])).toMatchObject([{ remaining: 993 }])
    const next = await folders.start(await folders.crash(folder))
    expect(await eventIds(next)).toEqual([early, ...calls.map((call) => call.ifAbandoned.id)].sort())
  })

  it('counts an event once, whether the ledger has it already or not, and concurrency from 0', async () => {
    const [month, calls] = [period({ capacity: 100 }), concurrency(5)]
    await settled(limits, [{ limit: month, amount: 30 }])
    await limits.admit(
      admission([
        { limit: month, amount: 20 },
        { limit: calls, amount: 1 },
      ]),
    )
    const ledger = new FakeLedger()
    ledger.usedBefore.set(month.key, 7)
    const next = await folders.start(await folders.crash(folder), { seed: ledger.seed })
    const left = [{ remaining: 100 - 7 - 30 - 20 }, { remaining: 5 }]
    expect(await next.read([month, calls])).toMatchObject(left)
    expect(ledger.asked.at(-1)?.waiting).toHaveLength(2)
    await drain(next.usageLog, ledger)
    const later = await folders.start(await folders.crash(folder), { seed: ledger.seed })
    expect(await later.read([month, calls])).toMatchObject(left)
  })

  it('tells a threshold of a month once, over any number of restarts', async () => {
    const month = period({ capacity: 100 })
    const { seed } = new FakeLedger()
    const told: unknown[] = []
    for (const actual of [85, 0, 20, 0]) {
      folder = await folders.crash(folder)
      const next = await folders.start(folder, { seed })
      const call = admission([{ limit: month, amount: 1 }])
      await next.admit(call)
      told.push((await next.settle(settlement(call, [actual]))).crossed.map(({ threshold }) => threshold))
    }
    expect(told).toEqual([[80], [], [100], []])
  })

  it('cuts off an unfinished record and keeps every one before it', async () => {
    const kept = [await settled(limits), await settled(limits)].sort()
    const [name = ''] = await segmentsOf(folder)
    const { length } = await readFile(join(folder, name))
    const { event: last } = await record(limits)
    const whole = await folders.crash(folder)
    const { length: full } = await readFile(join(whole, name))
    for (const size of [length, length + 1, length + 8, length + 9, (length + full) >> 1, full - 1]) {
      const torn = await folders.crash(folder)
      await truncate(join(torn, name), size)
      const next = await folders.start(torn)
      expect(await eventIds(next)).toEqual(kept)
      const added = await settled(next)
      await next.close()
      const again = await folders.start(torn)
      expect(await eventIds(again)).toEqual([added])
      await again.close()
    }
    const next = await folders.start(whole)
    expect(await eventIds(next)).toEqual([...kept, last.id].sort())
  })

  it.each([0x00, 0xff])('cuts off a tail of bytes 0x%i', async (byte) => {
    const kept = await settled(limits)
    const torn = await folders.crash(folder)
    const [name = ''] = await segmentsOf(torn)
    const file = await open(join(torn, name), 'a')
    await file.write(Buffer.alloc(300, byte))
    await file.close()
    expect(await eventIds(await folders.start(torn))).toEqual([kept])
  })

  it.each(['keeping', 'draining'])(
    'by SIGKILL in mid-load, %s what it settled, knows every settlement that was answered, and its answer',
    async (mode) => {
      const busy = await folders.make()
      const script = join(import.meta.dirname, '../../test/support/settle-forever.ts')
      const child = spawn(process.execPath, [script, busy, mode], { stdio: ['ignore', 'pipe', 'inherit'] })
      let output = ''
      child.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString()
        if (output.length > 80_000) child.kill('SIGKILL')
      })
      await once(child, 'close')
      const answered = output.slice(0, output.lastIndexOf('\n')).split('\n')
      expect(answered.length).toBeGreaterThan(100)
      const next = await folders.start(busy)
      const found = new Set(await eventIds(next))
      for (const line of answered) {
        const [event = '', call = ''] = line.split(' ')
        if (mode === 'keeping') expect(found).toContain(event)
        const again = await next.admit(admission([], { claim: { key: call, fingerprint: 'a' } }))
        expect(again).toEqual({ outcome: 'answered', answer: Uint8Array.from(Buffer.from(call)) })
      }
    },
    60_000,
  )
})

describe('segment files', () => {
  it('are deleted when all is acknowledged, but not under an open reservation', async () => {
    const folder = await folders.make()
    const limits = await folders.start(folder, { segmentBytes: 4_000 })
    const held = admission([])
    await limits.admit(held)
    async function settleMany(): Promise<void> {
      for (let i = 0; i < 30; i++) await record(limits)
    }
    await settleMany()
    const before = (await segmentsOf(folder)).length
    expect(before).toBeGreaterThan(3)
    await eventIds(limits)
    expect(await segmentsOf(folder)).toHaveLength(before)
    await limits.settle(settlement(held, []))
    await eventIds(limits)
    expect((await segmentsOf(folder)).length).toBeLessThanOrEqual(2)
    await settleMany()
    expect(await eventIds(await folders.start(await folders.crash(folder)))).toHaveLength(30)
  })

  it('share one sync among settlements that come together', async () => {
    let syncs = 0
    const limits = await folders.start(await folders.make(), {
      async openFile(path, flags) {
        const file = await openSegmentFile(path, flags)
        return {
          ...file,
          datasync() {
            syncs++
            return file.datasync()
          },
        }
      },
    })
    await Promise.all(Array.from({ length: 500 }, () => record(limits)))
    expect(syncs).toBeLessThan(20)
    expect(await limits.usageLog.backlog()).toBe(500)
  })

  it('belong to one process', async () => {
    const folder = await folders.make()
    const limits = await folders.start(folder)
    await expect(folders.start(folder)).rejects.toThrow(/in use by process \d+/)
    await limits.close()
    await folders.start(folder)
  })
})

describe('a disk that fails', () => {
  type Fault = 'none' | 'write' | 'short write' | 'sync'
  let fault: Fault
  let folder: string
  let limits: Limits

  beforeEach(async () => {
    fault = 'none'
    folder = await folders.make()
    limits = await folders.start(folder, { openFile })
  })

  async function openFile(path: string, flags: string): Promise<SegmentFile> {
    const file = await openSegmentFile(path, flags)
    const full = () => Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
    return {
      ...file,
      write(bytes, from, length, position) {
        if (fault === 'short write') file.write(bytes, from, Math.min(length, 11), position)
        if (fault === 'write' || fault === 'short write') throw full()
        return file.write(bytes, from, length, position)
      },
      async datasync() {
        if (fault === 'sync') throw full()
        await file.datasync()
      },
    }
  }

  it.each<Fault>(['write', 'short write', 'sync'])(
    'by %s refuses, takes nothing, and works again after it',
    async (kind) => {
      const month = period({ capacity: 100 })
      const costs = [{ limit: month, amount: 10 }]
      const call = admission(costs)
      await limits.admit(call)
      fault = kind
      await expect(limits.settle(settlement(call, [3]))).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
      if (kind !== 'sync') {
        await expect(limits.admit(admission(costs))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
        expect(await limits.health()).toMatchObject({ ok: false })
      }
      expect(await limits.read([month])).toMatchObject([{ remaining: 90 }])
      expect(await limits.usageLog.backlog()).toBe(0)
      fault = 'none'
      await limits.settle(settlement(call, [3]))
      expect(await limits.health()).toMatchObject({ ok: true })
      expect(await limits.read([month])).toMatchObject([{ remaining: 97 }])
      expect(await eventIds(await folders.start(await folders.crash(folder)))).toEqual([call.ifAbandoned.id])
      expect(await eventIds(limits)).toEqual([call.ifAbandoned.id])
    },
  )

  it.each<Fault>(['write', 'short write', 'sync'])(
    'by %s holds the claim of a call that is not settled, and gives up that of one that is not admitted',
    async (kind) => {
      const [held, refused] = [claim(), claim()]
      const calls = concurrency(9)
      const call = admission([], { claim: held })
      await limits.admit(call)
      fault = kind
      await expect(limits.settle(settlement(call, [], Buffer.from('x')))).rejects.toThrow()
      expect(await limits.admit(admission([], { claim: held }))).toEqual({ outcome: 'running' })
      if (kind !== 'sync') {
        const late = admission([{ limit: calls, amount: 1 }], { claim: refused })
        const results = await Promise.allSettled([limits.admit(late), limits.admit(late)])
        expect(results.map((result) => result.status)).toEqual(['rejected', 'rejected'])
        expect(await limits.read([calls])).toMatchObject([{ remaining: 9 }])
      }
      fault = 'none'
      expect(await limits.admit(admission([], { claim: refused }))).toMatchObject({ outcome: 'admitted' })
      await limits.settle(settlement(call, [], Buffer.from('x')))
      expect(await limits.admit(admission([], { claim: held }))).toMatchObject({ outcome: 'answered' })
    },
  )

  it.each<Fault>(['write', 'short write', 'sync'])(
    'by %s corrects an abandoned call once, however often that is tried',
    async (kind) => {
      const month = period({ capacity: 100 })
      const call = admission([{ limit: month, amount: 40 }], { leaseMs: 0 })
      await limits.admit(call)
      expect(await limits.usageLog.sweep()).toBe(1)
      fault = kind
      for (let i = 0; i < 2; i++) {
        await expect(limits.settle(settlement(call, [5]))).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
      }
      fault = 'none'
      expect(await limits.read([month])).toMatchObject([{ remaining: 60 }])
      await limits.settle(settlement(call, [5]))
      expect(await limits.read([month])).toMatchObject([{ remaining: 95 }])
      const next = await folders.start(await folders.crash(folder))
      expect(await next.read([month])).toMatchObject([{ remaining: 95 }])
      expect(await eventIds(next)).toHaveLength(3)
    },
  )
})

describe('a counter', () => {
  it('follows a call that was admitted before its limit was made', async () => {
    const limits = await folders.start(await folders.make())
    const [old, made] = [period({ capacity: 1_000 }), period({ capacity: 500, unit: 'nanos' })]
    const call = admission([{ limit: old, amount: 10 }])
    await limits.admit(call)
    expect(await limits.read([made])).toMatchObject([{ remaining: 500 }])
    const { event, ...rest } = settlement(call, [20])
    await limits.settle({ ...rest, event: { ...event, consumerId: made.scope.id, costNanos: 30 } })
    expect(await limits.read([old, made])).toMatchObject([{ remaining: 980 }, { remaining: 470 }])
  })
})

describe('a full backlog', () => {
  it('stops admission until the ledger took events', async () => {
    const limits = await folders.start(await folders.make(), { maxBacklog: 1 })
    await record(limits)
    await expect(limits.admit(admission([]))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await drain(limits.usageLog, new FakeLedger(), { enough: 1 })
    expect(await limits.admit(admission([]))).toMatchObject({ outcome: 'admitted' })
  })
})
