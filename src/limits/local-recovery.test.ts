import fc from 'fast-check'
import { afterEach, expect, it } from 'vitest'
import { admission, concurrency, FakeLedger, period, settlement } from './conformance-support.ts'
import type { Admission, Limits } from './limits.ts'
import { LocalFolders } from './local-support.ts'

const folders = new LocalFolders()

afterEach(() => folders.clear())

type Step =
  | { readonly kind: 'admit'; readonly amount: number }
  /** Of the calls so far, counted from the newest; with an answer when that is not empty. */
  | { readonly kind: 'settle'; readonly back: number; readonly amount: number; readonly answer: Uint8Array }
  /** The leases of all open calls run out. */
  | { readonly kind: 'expire' }
  /** A reader reads so many entries, takes some of them to the ledger, and acknowledges those or fewer. */
  | { readonly kind: 'drain'; readonly read: number; readonly acknowledged: number; readonly more: number }
  /** The process dies, and another one takes its place. */
  | { readonly kind: 'die' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('admit' as const), amount: fc.nat(9) }) },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('settle' as const),
        back: fc.nat(4),
        amount: fc.nat(9),
        answer: fc.uint8Array({ maxLength: 40 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('expire' as const) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('drain' as const),
        read: fc.nat(12),
        acknowledged: fc.nat(4),
        more: fc.nat(3),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('die' as const) }) },
  ),
  { minLength: 1, maxLength: 40, size: 'max' },
)

interface Call {
  readonly admission: Admission
  state: 'open' | 'abandoned' | 'settled'
  /** The process that held it died: nobody settles it any more. */
  isLost: boolean
  /** Tokens that the ledger must end up with. */
  tokens: number
  answer: Uint8Array | undefined
}

it('counts every call once and keeps every answer, wherever the process dies', async () => {
  await fc.assert(
    fc.asyncProperty(steps, (program) => run(program)),
    { numRuns: 150 },
  )
}, 60_000)

async function run(program: readonly Step[]): Promise<void> {
  const ledger = new FakeLedger()
  const [month, concurrent] = [period({ capacity: 1_000_000 }), concurrency(1_000)]
  const calls: Call[] = []
  let nowMs = Date.now()
  const start = (folder: string) =>
    folders.start(folder, { seed: ledger.seed, clock: () => nowMs, segmentBytes: 3_000, reclaimIdleMs: 1 })
  let folder = await folders.make()
  let limits = await start(folder)

  const check = async () => {
    const used = calls.reduce((sum, call) => sum + call.tokens, 0)
    const open = calls.filter((call) => call.state === 'open').length
    const left = (await limits.read([month, concurrent])).map((state) => state.remaining)
    expect(left).toEqual([1_000_000 - used, 1_000 - open])
    for (const { admission: call, state, answer } of calls) {
      const held = { ...claimOf(call), fingerprint: 'other' }
      const result = await limits.admit(admission([{ limit: concurrent, amount: 1_001 }], { claim: held }))
      // A claim that is free gets as far as the limits, which refuse this one.
      expect(result.outcome).toBe(state === 'open' || answer !== undefined ? 'mismatch' : 'refused')
      if (answer !== undefined) {
        expect(await limits.admit(admission([], { claim: claimOf(call) }))).toEqual({ outcome: 'answered', answer })
      }
    }
  }

  for (const step of program) {
    if (step.kind === 'admit') {
      const key = `claim|${calls.length}|${month.key}`
      const costs = [
        { limit: month, amount: step.amount },
        { limit: concurrent, amount: 1 },
      ]
      const call = admission(costs, { leaseMs: 1_000, claim: { key, fingerprint: 'a' } })
      expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
      calls.unshift({ admission: call, state: 'open', isLost: false, tokens: step.amount, answer: undefined })
    } else if (step.kind === 'settle') {
      const call = calls[step.back]
      if (call === undefined || call.isLost) continue
      const answer = step.answer.length === 0 ? undefined : step.answer
      await limits.settle(settlement(call.admission, [step.amount, 1], answer))
      if (call.state !== 'settled') Object.assign(call, { state: 'settled', tokens: step.amount, answer })
    } else if (step.kind === 'expire') {
      nowMs += 1_000
      const open = calls.filter((call) => call.state === 'open')
      expect(await limits.usageLog.sweep()).toBe(open.length)
      for (const call of open) call.state = 'abandoned'
    } else if (step.kind === 'drain') {
      // What earlier steps left unacknowledged is delivered again, and nothing twice in one step.
      nowMs += 1
      await drainSome(limits, ledger, step)
    } else {
      folder = await folders.crash(folder)
      limits = await start(folder)
      for (const call of calls) {
        call.isLost = true
        if (call.state === 'open') call.state = 'abandoned'
      }
    }
    await check()
  }

  nowMs += 1
  while ((await limits.usageLog.backlog()) > 0) {
    await drainSome(limits, ledger, { read: 1_000, acknowledged: 1_000, more: 0 })
  }
  const ids = new Set(ledger.ids)
  const ended = calls.filter((call) => call.state !== 'open').map((call) => call.admission.ifAbandoned.id)
  expect(ended.filter((id) => !ids.has(id))).toEqual([])
  expect(await limits.usageLog.backlog()).toBe(0)
  await check()
  await folders.clear()
}

async function drainSome(
  limits: Limits,
  ledger: FakeLedger,
  { read, acknowledged, more }: { read: number; acknowledged: number; more: number },
): Promise<void> {
  const next = (max: number) => limits.usageLog.read(max, 0, new AbortController().signal)
  const done = await next(Math.min(read, acknowledged))
  const written = await next(Math.min(Math.max(0, read - acknowledged), more))
  await next(Math.max(0, read - acknowledged - more))
  ledger.take([...done.events(), ...written.events()])
  await done.acknowledge()
}

function claimOf(call: Admission): { key: string; fingerprint: string } {
  if (call.claim === undefined) throw new Error('every call here has a claim')
  return call.claim
}
