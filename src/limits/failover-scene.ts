import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { expect } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { admission, FakeLedger } from './conformance-support.ts'
import { createFailoverLimits, type FailoverLimits, type FailoverOptions } from './failover-limits.ts'
import { Reachable, startDrain } from './failover-support.ts'
import type { Admission, Limit, LimitCost, Limits, UsageLog } from './limits.ts'
import { createLocalLimits } from './local-limits.ts'

const log = pino({ level: 'silent' })

/** A process that falls back to limits of its own. */
export interface Replica {
  readonly limits: FailoverLimits
  /** Its way to the store of all. */
  readonly link: Reachable
  readonly folder: string
  /** Stops carrying local usage to the ledger. */
  stopDrain(): Promise<void>
}

/** A store of limits that replicas share, and a ledger; for one test. */
export class FailoverScene {
  readonly ledger: FakeLedger
  readonly store: Limits
  readonly storeDrain: { stop(): Promise<void> }
  readonly #closers: (() => Promise<unknown>)[]

  private constructor(ledger: FakeLedger, store: Limits, closers: (() => Promise<unknown>)[]) {
    this.ledger = ledger
    this.store = store
    this.#closers = closers
    this.#closers.unshift(() => store.close())
    this.storeDrain = this.drain(store.usageLog)
  }

  static async open(): Promise<FailoverScene> {
    const closers: (() => Promise<unknown>)[] = []
    const ledger = new FakeLedger()
    return new FailoverScene(
      ledger,
      await createLocalLimits({ folder: await newFolder(closers), seed: ledger.seed, log }),
      closers,
    )
  }

  async start(changes: Partial<FailoverOptions> = {}, folder?: string): Promise<Replica> {
    const { ledger } = this
    const own = folder ?? (await newFolder(this.#closers))
    const link = new Reachable(this.store)
    const limits = await createFailoverLimits({
      primary: link,
      openLocal: (seed) => createLocalLimits({ folder: join(own, 'usage'), seed, log }),
      folder: own,
      mode: 'local',
      replicas: () => 1,
      seed: ledger.seed,
      log,
      probeEveryMs: 5,
      ...changes,
    })
    this.#closers.unshift(() => limits.close())
    const drain = this.drain(limits.localUsageLog)
    return { limits, link, folder: own, stopDrain: () => drain.stop() }
  }

  /** Carries a usage log to the ledger until it is stopped, at the latest before the log is closed: a test may fail meanwhile. */
  drain(log: UsageLog): { stop(): Promise<void> } {
    const drain = startDrain(log, this.ledger)
    this.#closers.unshift(() => drain.stop())
    return drain
  }

  /** The folder as a process leaves it that dies now. */
  async crash({ folder }: Replica): Promise<string> {
    const copy = await newFolder(this.#closers)
    await cp(folder, copy, { recursive: true })
    await rm(join(copy, 'usage/lock'))
    return copy
  }

  /** Ends what was begun last first. */
  async close(): Promise<void> {
    for (const close of this.#closers.splice(0)) await close()
  }
}

async function newFolder(closers: (() => Promise<unknown>)[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-away-'))
  closers.unshift(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Resolves when the store is back, and each replica admits there again. */
export async function back(...replicas: Replica[]): Promise<void> {
  for (const { link } of replicas) link.state = 'here'
  for (const { limits } of replicas) await eventually(() => limits.state().mode === 'redis')
}

/** A new call at this cost, which must be admitted. */
export async function admitted(limits: Limits, cost: readonly LimitCost[], changes: Partial<Admission> = {}) {
  const call = admission(cost, changes)
  expect(await limits.admit(call)).toMatchObject({ outcome: 'admitted' })
  return call
}

/** The calls at this cost that are admitted until one is refused. */
export async function admitAll(limits: Limits, cost: readonly LimitCost[]): Promise<Admission[]> {
  const calls: Admission[] = []
  for (;;) {
    const call = admission(cost)
    if ((await limits.admit(call)).outcome !== 'admitted') return calls
    calls.push(call)
  }
}

export async function remaining(limits: Limits, ...of: Limit[]): Promise<number[]> {
  return (await limits.read(of)).map((state) => state.remaining)
}
