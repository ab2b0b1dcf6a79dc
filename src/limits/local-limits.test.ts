import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, open, readdir, readFile, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { limitsConformance } from './conformance.ts'
import { admission, drain, open as parts, period, usageEvent } from './conformance-support.ts'
import type { LimitCost, Limits } from './limits.ts'
import { createLocalLimits, type LocalLimitsOptions } from './local-limits.ts'
import type { SegmentFile } from './segment-log.ts'

const log = pino({ level: 'silent' })
const folders: string[] = []
const opened: Limits[] = []

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-limits-'))
  folders.push(folder)
  return folder
}

async function start(folder: string, changes: Partial<LocalLimitsOptions> = {}): Promise<Limits> {
  const limits = await createLocalLimits({ folder, log, seed: async () => 0, ...changes })
  opened.push(limits)
  return limits
}

/** The folder as a process leaves it that dies now: what is written, without the lock of the living. */
async function crash(folder: string): Promise<string> {
  const copy = await newFolder()
  await cp(folder, copy, { recursive: true })
  await rm(join(copy, 'lock'))
  return copy
}

async function segmentsOf(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.endsWith('.segment')).sort()
}

async function eventIds(limits: Limits): Promise<string[]> {
  const ids = new Set<string>()
  while ((await limits.usageLog.backlog()) > 0) {
    const entries = await limits.usageLog.read(1_000, 100, AbortSignal.timeout(20_000))
    for (const entry of entries) ids.add(entry.event.id)
    await limits.usageLog.acknowledge(entries)
  }
  return [...ids].sort()
}

afterEach(async () => {
  for (const limits of opened.splice(0)) await limits.close()
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

limitsConformance('local', async () => {
  const used = new Map<string, number>()
  const asked: string[] = []
  const seed = async ({ key }: { key: string }) => {
    asked.push(key)
    return used.get(key) ?? 0
  }
  const limits = await start(await newFolder(), { seed, reclaimIdleMs: 300 })
  return { limits, other: limits, used, asked, close: async () => undefined }
})

describe('after the process died', () => {
  let folder: string
  let limits: Limits

  beforeEach(async () => {
    folder = await newFolder()
    limits = await start(folder)
  })

  async function settled(on: Limits, costs: readonly LimitCost[] = []): Promise<string> {
    const call = admission(costs)
    await on.admit(call)
    await on.settle({ ...parts(call), actual: costs.map((cost) => cost.amount) })
    return call.ifAbandoned.id
  }

  it('delivers settled events again that were not acknowledged, and no others', async () => {
    const first = await settled(limits)
    expect(await eventIds(limits)).toEqual([first])
    const rest = [await settled(limits), await settled(limits)].sort()
    const next = await start(await crash(folder))
    expect(await eventIds(next)).toEqual(rest)
  })

  it('records calls in flight as abandoned at once, and only the first time', async () => {
    const calls = [admission([]), admission([{ limit: period({ capacity: 9 }), amount: 4 }])]
    for (const call of calls) await limits.admit(call)
    const copy = await crash(folder)
    const second = await start(copy)
    const entries = await second.usageLog.read(10, 1_000, AbortSignal.timeout(20_000))
    expect(entries.map((entry) => entry.event)).toEqual(calls.map((call) => call.ifAbandoned))
    const third = await start(await crash(copy))
    expect(await third.usageLog.backlog()).toBe(2)
  })

  it('counts replayed events on top of the ledger until they are acknowledged', async () => {
    const month = period({ capacity: 100 })
    await settled(limits, [{ limit: month, amount: 30 }])
    await limits.admit(admission([{ limit: month, amount: 20 }]))
    const early = await start(await crash(folder), { seed: async () => 7 })
    expect(await early.read('org', [month])).toMatchObject([{ remaining: 100 - 7 - 30 - 20 }])
    const late = await start(await crash(folder), { seed: async () => 57 })
    await eventIds(late)
    expect(await late.read('org', [month])).toMatchObject([{ remaining: 100 - 57 }])
  })

  it('cuts off an unfinished record and keeps every one before it', async () => {
    const kept = [await settled(limits), await settled(limits)].sort()
    const [name = ''] = await segmentsOf(folder)
    const { length } = await readFile(join(folder, name))
    const last = usageEvent()
    await limits.settle({ id: last.requestId, organizationId: 'org', actual: [], event: last })
    const whole = await crash(folder)
    const { length: full } = await readFile(join(whole, name))
    for (const size of [length, length + 1, length + 8, length + 9, (length + full) >> 1, full - 1]) {
      const torn = await crash(folder)
      await truncate(join(torn, name), size)
      const next = await createLocalLimits({ folder: torn, log, seed: async () => 0 })
      expect(await eventIds(next)).toEqual(kept)
      const added = await settled(next)
      await next.close()
      const again = await createLocalLimits({ folder: torn, log, seed: async () => 0 })
      expect(await eventIds(again)).toEqual([added])
      await again.close()
      await rm(torn, { recursive: true })
    }
    const next = await start(whole)
    expect(await eventIds(next)).toEqual([...kept, last.id].sort())
  })

  it.each([0x00, 0xff])('cuts off a tail of bytes 0x%i', async (byte) => {
    const kept = await settled(limits)
    const torn = await crash(folder)
    const [name = ''] = await segmentsOf(torn)
    const file = await open(join(torn, name), 'a')
    await file.write(Buffer.alloc(300, byte))
    await file.close()
    expect(await eventIds(await start(torn))).toEqual([kept])
  })

  it('by SIGKILL in mid-load, knows every settlement that was answered', async () => {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, '../../test/support/settle-forever.ts'), `${folder}-k`],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    folders.push(`${folder}-k`)
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      if (output.length > 40_000) child.kill('SIGKILL')
    })
    await once(child, 'close')
    const answered = output.slice(0, output.lastIndexOf('\n')).split('\n')
    expect(answered.length).toBeGreaterThan(100)
    const found = new Set(await eventIds(await start(`${folder}-k`)))
    expect(answered.filter((id) => !found.has(id))).toEqual([])
  }, 60_000)
})

describe('segment files', () => {
  it('are deleted when all is acknowledged, but not under an open reservation', async () => {
    const folder = await newFolder()
    const limits = await start(folder, { segmentBytes: 4_000 })
    const held = admission([])
    await limits.admit(held)
    async function settleMany(): Promise<void> {
      for (let i = 0; i < 30; i++) {
        const event = usageEvent()
        await limits.settle({ id: event.requestId, organizationId: 'org', actual: [], event })
      }
    }
    await settleMany()
    const before = (await segmentsOf(folder)).length
    expect(before).toBeGreaterThan(3)
    await eventIds(limits)
    expect(await segmentsOf(folder)).toHaveLength(before)
    await limits.settle({ ...parts(held), actual: [] })
    await eventIds(limits)
    expect((await segmentsOf(folder)).length).toBeLessThanOrEqual(2)
    await settleMany()
    expect(await eventIds(await start(await crash(folder)))).toHaveLength(30)
  })

  it('share one sync among settlements that come together', async () => {
    let syncs = 0
    const limits = await start(await newFolder(), {
      async openFile(path, flags) {
        const file = await open(path, flags)
        const datasync = file.datasync.bind(file)
        file.datasync = () => {
          syncs++
          return datasync()
        }
        return file
      },
    })
    const events = Array.from({ length: 500 }, () => usageEvent())
    const settle = (event: (typeof events)[number]) =>
      limits.settle({ id: event.requestId, organizationId: 'org', actual: [], event })
    await Promise.all(events.map(settle))
    expect(syncs).toBeLessThan(20)
    expect(await limits.usageLog.backlog()).toBe(500)
  })

  it('belong to one process', async () => {
    const folder = await newFolder()
    const limits = await start(folder)
    await expect(createLocalLimits({ folder, log, seed: async () => 0 })).rejects.toThrow(/in use by process \d+/)
    await limits.close()
    await start(folder)
  })
})

describe('a disk that fails', () => {
  type Fault = 'none' | 'write' | 'short write' | 'sync'
  let fault: Fault
  let folder: string
  let limits: Limits

  beforeEach(async () => {
    fault = 'none'
    folder = await newFolder()
    limits = await start(folder, { openFile })
  })

  async function openFile(path: string, flags: string): Promise<SegmentFile> {
    const file = await open(path, flags)
    const full = () => Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
    return {
      async write(bytes, from, length, position) {
        if (fault === 'short write') await file.write(bytes, from, Math.min(length, 11), position)
        if (fault === 'write' || fault === 'short write') throw full()
        return file.write(bytes, from, length, position)
      },
      async datasync() {
        if (fault === 'sync') throw full()
        await file.datasync()
      },
      truncate: (size: number) => file.truncate(size),
      close: () => file.close(),
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
      const settlement = { ...parts(call), actual: [3] }
      await expect(limits.settle(settlement)).rejects.toMatchObject({ reason: 'STORAGE_UNAVAILABLE' })
      if (kind !== 'sync') {
        await expect(limits.admit(admission(costs))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
        expect(await limits.health()).toMatchObject({ ok: false })
      }
      expect(await limits.read('org', [month])).toMatchObject([{ remaining: 90 }])
      expect(await limits.usageLog.backlog()).toBe(0)
      fault = 'none'
      await limits.settle(settlement)
      expect(await limits.health()).toMatchObject({ ok: true })
      expect(await limits.read('org', [month])).toMatchObject([{ remaining: 97 }])
      expect(await eventIds(await start(await crash(folder)))).toEqual([call.ifAbandoned.id])
      expect(await eventIds(limits)).toEqual([call.ifAbandoned.id])
    },
  )
})

describe('a full backlog', () => {
  it('stops admission until the ledger took events', async () => {
    const limits = await start(await newFolder(), { maxBacklog: 1 })
    const event = usageEvent()
    await limits.settle({ id: event.requestId, organizationId: 'org', actual: [], event })
    await expect(limits.admit(admission([]))).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    await drain(limits.usageLog, 1)
    expect(await limits.admit(admission([]))).toMatchObject({ admitted: true })
  })
})
