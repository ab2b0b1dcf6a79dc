import { readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { admission, claim, drain, FakeLedger, settlement, unknownCall } from './conformance-support.ts'
import type { AdmissionResult, Claim, Limits } from './limits.ts'
import type { LocalLimitsOptions } from './local-limits.ts'
import { LocalFolders, segmentsOf } from './local-support.ts'
import { openSegmentFile } from './segment-file.ts'

const folders = new LocalFolders()
let folder: string
let nowMs: number

beforeEach(async () => {
  folder = await folders.make()
  nowMs = Date.now()
})
afterEach(() => folders.clear())

function start(at: string, changes: Partial<LocalLimitsOptions> = {}): Promise<Limits> {
  return folders.start(at, { clock: () => nowMs, ...changes })
}

/** Another call with this claim. */
function again(limits: Limits, held: Claim): Promise<AdmissionResult> {
  return limits.admit(admission([], { claim: held }))
}

/** A call that is answered with so many bytes; its claim. */
async function answer(limits: Limits, bytes: Uint8Array): Promise<Claim> {
  const held = claim()
  const call = admission([], { claim: held })
  await limits.admit(call)
  await limits.settle(settlement(call, [], bytes))
  return held
}

/** Fills segments, and lets the ledger take everything. */
async function turnOver(limits: Limits, calls = 60): Promise<void> {
  for (let i = 0; i < calls; i++) await limits.settle(unknownCall())
  await drain(limits.usageLog, new FakeLedger(), { quietMs: 1 })
}

const everyByte = Uint8Array.from({ length: 1_000 }, (_, index) => index)

it('outlive the process, byte by byte; what was in flight is free again', async () => {
  const first = await start(folder)
  const answered = await answer(first, everyByte)
  const empty = await answer(first, new Uint8Array())
  const running = claim()
  expect(await again(first, running)).toMatchObject({ outcome: 'admitted' })
  const next = await start(await folders.crash(folder))
  expect(await again(next, answered)).toEqual({ outcome: 'answered', answer: everyByte })
  expect(await again(next, { ...answered, fingerprint: 'b' })).toEqual({ outcome: 'mismatch' })
  expect(await again(next, empty)).toEqual({ outcome: 'answered', answer: new Uint8Array() })
  expect(await again(next, { ...running, fingerprint: 'b' })).toMatchObject({ outcome: 'admitted' })
})

it('are not there when their settlement was torn: the call is abandoned, and its claim free', async () => {
  const first = await start(folder)
  const kept = await answer(first, everyByte)
  const [name = ''] = await segmentsOf(folder)
  const call = admission([], { claim: claim() })
  await first.admit(call)
  const { length } = await readFile(join(folder, name))
  await first.settle(settlement(call, [], everyByte))
  const { length: full } = await readFile(join(folder, name))
  for (const size of [length, length + 8, full - 1_001, full - 1_000, full - 1]) {
    const torn = await folders.crash(folder)
    await truncate(join(torn, name), size)
    const next = await start(torn)
    expect(await again(next, call.claim ?? claim())).toMatchObject({ outcome: 'admitted' })
    expect(await again(next, kept)).toMatchObject({ outcome: 'answered' })
    const events = await drain(next.usageLog, new FakeLedger(), { quietMs: 1 })
    expect(events.map((event) => event.status)).toEqual(['succeeded', 'abandoned'])
  }
})

it('end after their time, also over a restart', async () => {
  const first = await start(folder, { answerTtlMs: 1_000 })
  const held = await answer(first, everyByte)
  nowMs += 999
  expect(await again(first, held)).toMatchObject({ outcome: 'answered' })
  const next = await start(await folders.crash(folder), { answerTtlMs: 1_000 })
  expect(await again(next, held)).toMatchObject({ outcome: 'answered' })
  nowMs += 1
  for (const limits of [first, next, await start(await folders.crash(folder))]) {
    expect(await again(limits, { ...held, fingerprint: 'b' })).toMatchObject({ outcome: 'admitted' })
  }
})

it('are dropped from the oldest on when there are too many, and not kept at all when one is too large', async () => {
  const first = await start(folder, { answersMaxBytes: 4_000 })
  const claims: Claim[] = []
  for (let i = 0; i < 5; i++) claims.push(await answer(first, everyByte))
  claims.push(await answer(first, new Uint8Array(5_000)))
  const next = await start(await folders.crash(folder), { answersMaxBytes: 4_000 })
  for (const limits of [first, next]) {
    const outcomes = []
    for (const held of claims) outcomes.push((await again(limits, held)).outcome)
    expect(outcomes).toEqual(['admitted', 'admitted', 'admitted', 'answered', 'answered', 'admitted'])
  }
})

it('take at most 64 MiB together and a day each, if nothing else is said', async () => {
  const limits = await start(folder)
  const claims: Claim[] = []
  for (let i = 0; i < 65; i++) claims.push(await answer(limits, new Uint8Array(1_048_576)))
  const outcomes = []
  for (const held of [claims[0], claims[64]]) outcomes.push((await again(limits, held ?? claim())).outcome)
  expect(outcomes).toEqual(['admitted', 'answered'])
  nowMs += 86_400_000 - 1
  expect(await again(limits, claims[64] ?? claim())).toMatchObject({ outcome: 'answered' })
  nowMs += 1
  expect(await again(limits, claims[64] ?? claim())).toMatchObject({ outcome: 'admitted' })
})

it('do not keep segments: they move before theirs is deleted, and their own go when their time is over', async () => {
  const options = { segmentBytes: 4_000, answerTtlMs: 1_000 }
  const first = await start(folder, options)
  const early = await answer(first, everyByte)
  const claims = [early]
  for (let i = 0; i < 10; i++) {
    await turnOver(first, 10)
    nowMs += 10
    claims.push(await answer(first, everyByte))
  }
  await turnOver(first)
  expect((await segmentsOf(folder)).length).toBeLessThanOrEqual(2)
  const before = await segmentsOf(join(folder, 'answers'))
  expect(before.length).toBeGreaterThan(2)

  const next = await start(await folders.crash(folder), options)
  expect(await next.usageLog.backlog()).toBe(0)
  for (const held of claims) expect(await again(next, held)).toEqual({ outcome: 'answered', answer: everyByte })

  nowMs += 950
  expect(await again(first, early)).toMatchObject({ outcome: 'admitted' })
  await turnOver(first)
  const after = await segmentsOf(join(folder, 'answers'))
  expect(after.length).toBeLessThan(before.length)
  for (const held of claims.slice(-3)) expect(await again(first, held)).toMatchObject({ outcome: 'answered' })
  nowMs += 1_000
  await turnOver(first)
  expect(await segmentsOf(join(folder, 'answers'))).toHaveLength(1)
})

it('stay in their segment while they cannot be moved', async () => {
  let isFull = true
  const limits = await start(folder, {
    segmentBytes: 4_000,
    async openFile(path, flags) {
      if (isFull && path.includes('/answers/')) throw new Error('ENOSPC: no space left on device')
      return openSegmentFile(path, flags)
    },
  })
  const held = await answer(limits, everyByte)
  const [first] = await segmentsOf(folder)
  await turnOver(limits)
  expect(await segmentsOf(folder)).toContain(first)
  const next = await start(await folders.crash(folder))
  expect(await again(next, held)).toMatchObject({ outcome: 'answered' })
  expect(await next.usageLog.backlog()).toBe(0)
  isFull = false
  await turnOver(limits)
  expect((await segmentsOf(folder)).length).toBeLessThanOrEqual(2)
  expect(await again(await start(await folders.crash(folder)), held)).toMatchObject({ outcome: 'answered' })
})

it('are kept of a call that was late, when nobody else took its claim', async () => {
  const limits = await start(folder)
  const held = claim()
  const call = admission([], { claim: held, leaseMs: 1_000 })
  await limits.admit(call)
  nowMs += 1_000
  expect(await limits.usageLog.sweep()).toBe(1)
  await limits.settle(settlement(call, [], everyByte))
  expect(await again(limits, held)).toEqual({ outcome: 'answered', answer: everyByte })
})
