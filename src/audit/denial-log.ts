/**
 * The way of denials to the audit log. Every denied call is counted in a **record**, and its answer waits until that
 * record is written, for a moment at most.
 *
 * - Denials are **alike** that have actor, action, reason, resource and address in common. The first one's record is written
 *   at once. Those that follow within `pauseMs` share the next one: a caller that asks in a loop leaves two records a
 *   second, and waits for them.
 * - Each actor has a **budget** of records. Beyond it, its denials share one record for each reason, whose action is "*"
 *   and which names no resource: a caller that asks for something else each time cannot fill the disk either.
 * - Records that are due in one tick go in one transaction, and one batch is on its way at a time. While Postgres is away
 *   they wait, `capacity` of them at most, and grow; none grows for longer than `growMs`. A batch that may have been written
 *   although nobody knows is written again with the same ids, and only what is missing.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { newId } from '../ids.ts'
import { pause } from '../pause.ts'
import { within } from '../within.ts'
import { ActorBudgets } from './actor-budgets.ts'
import type { IdentifiedEntry } from './audit-record.ts'
import type { Denial } from './denial.ts'

export interface DenialLogOptions {
  /** Writes entries, all or none; with `again`, only those that are not there. */
  readonly write: (entries: readonly IdentifiedEntry[], again: boolean) => Promise<void>
  readonly log: {
    info(fields: object, text: string): void
    warn(fields: object, text: string): void
    error(fields: object, text: string): void
  }
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
  /** Default 500. */
  readonly pauseMs?: number
  /** Default 60 000. */
  readonly growMs?: number
  /** Records that may wait; default 10 000. */
  readonly capacity?: number
  /** Records in one transaction; default 500. */
  readonly batchMax?: number
  /** Longest wait of {@link DenialLog.close}; default 3 000. */
  readonly closeTimeoutMs?: number
}

export interface DenialLog {
  /** Resolves when the denial is in the audit log, or after `timeoutMs`. Never rejects. */
  record(denial: Denial, timeoutMs: number): Promise<void>
  state(): DenialLogState
  /** Writes what waits, within its bound, and drops the rest. What is recorded from now on is dropped. Never rejects. */
  close(): Promise<void>
}

export interface DenialLogState {
  /** Denials since start, dropped ones included. */
  readonly denials: number
  /** Records written since start. */
  readonly records: number
  /** Denials that are in no record yet that is written. */
  readonly waiting: number
  /** Denials that were given up since start. */
  readonly dropped: number
  /** What came of the last attempt to write; undefined when it succeeded, or none was made yet. */
  readonly failing: string | undefined
}

/** See the head of this file. */
export function createDenialLog(options: DenialLogOptions): DenialLog {
  const { write, log, now = Date.now, pauseMs = 500, growMs = 60_000, capacity = 10_000, batchMax = 500 } = options
  const budgets = new ActorBudgets(now)
  /** Records that still grow, by what their denials have in common. */
  const growing = new Map<string, Waiting>()
  /** Records that grew long enough. */
  const grown: Waiting[] = []
  /** When the next record of the same may be written. */
  const nextMs = new Map<string, number>()
  let batch: readonly Waiting[] = []
  const counted = { denials: 0, records: 0, waiting: 0, dropped: 0 }
  /** Dropped since the last batch that was written. */
  let lost = 0
  let failing: string | undefined
  let phase: 'open' | 'closing' | 'closed' = 'open'
  let running: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let timerAtMs = Number.POSITIVE_INFINITY

  function recordFor(denial: Denial): Waiting | undefined {
    const key = keyOf(denial)
    const known = growing.get(key)
    if (known !== undefined && now() - known.createdAtMs < growMs) return known
    const isFull = growing.size + grown.length + batch.length >= capacity
    if (denial.action !== several && (isFull || !budgets.take(denial.actor))) return recordFor(folded(denial))
    if (isFull) return undefined
    if (known !== undefined) grown.push(known)
    const begun = new Waiting(denial, key, now(), nextMs.get(key) ?? 0)
    growing.set(key, begun)
    return begun
  }

  function drop(denials: number): void {
    if (lost === 0) log.error({ capacity, failing }, 'ALERT: denials are dropped, and will not be in the audit log')
    lost += denials
    counted.dropped += denials
  }

  function record(denial: Denial, timeoutMs: number): Promise<void> {
    counted.denials += 1
    const into = phase === 'open' ? recordFor(denial) : undefined
    if (into === undefined) {
      drop(1)
      return Promise.resolve()
    }
    into.count += 1
    counted.waiting += 1
    arm(into.dueMs)
    // A caller waits for its record no longer than that; the record itself goes on waiting.
    return within(timeoutMs, into.written).catch(() => {})
  }

  /** Sees to it that the writing goes on at `atMs`, or before. */
  function arm(atMs: number): void {
    if (running !== undefined || atMs >= timerAtMs) return
    clearTimeout(timer)
    timerAtMs = atMs
    timer = setTimeout(start, Math.max(0, atMs - now()))
  }

  function start(): void {
    clearTimeout(timer)
    timerAtMs = Number.POSITIVE_INFINITY
    running ??= run().finally(() => {
      running = undefined
      const dueMs = [...growing.values()].reduce((soonest, { dueMs: at }) => Math.min(soonest, at), timerAtMs)
      if (dueMs < timerAtMs && phase !== 'closed') arm(dueMs)
    })
  }

  async function run(): Promise<void> {
    for (batch = takeDue(); batch.length > 0; batch = takeDue()) {
      const entries = batch.map((waiting) => waiting.entry())
      for (let failures = 0; ; failures += 1) {
        try {
          await write(entries, failures > 0)
          break
        } catch (error) {
          if (phase === 'closed') return
          fail(error)
          await pauseAfter(failures)
        }
      }
      succeed()
    }
  }

  function takeDue(): Waiting[] {
    const nowMs = now()
    for (const [key, atMs] of nextMs) if (atMs <= nowMs) nextMs.delete(key)
    const due = grown.splice(0, batchMax)
    for (const waiting of growing.values()) {
      if (due.length >= batchMax) break
      if (waiting.dueMs > nowMs && phase === 'open') continue
      growing.delete(waiting.key)
      due.push(waiting)
    }
    return due
  }

  function succeed(): void {
    const denials = batch.reduce((sum, { count }) => sum + count, 0)
    counted.records += batch.length
    counted.waiting -= denials
    for (const waiting of batch) {
      nextMs.set(waiting.key, now() + pauseMs)
      waiting.resolve()
    }
    if (lost > 0) log.error({ dropped: lost }, 'denials were dropped, and are not in the audit log')
    if (failing !== undefined) log.info({ denials }, 'denials are written to the audit log again')
    lost = 0
    failing = undefined
    batch = []
  }

  function fail(error: unknown): void {
    const isNew = failing === undefined
    failing = error instanceof Error ? error.message : String(error)
    if (isNew) log.warn({ failing }, 'denials cannot be written to the audit log, and wait')
  }

  const stopping = new AbortController()

  async function pauseAfter(failures: number): Promise<void> {
    const ms = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(failures, 10))
    await pause(ms, stopping.signal, { ref: false })
    // While it closes it tries on, but does not spin.
    if (stopping.signal.aborted) await delay(firstPauseMs)
  }

  async function close(): Promise<void> {
    if (phase !== 'open') return
    phase = 'closing'
    stopping.abort()
    const end = async (): Promise<void> => {
      while (phase !== 'closed' && growing.size + grown.length + batch.length > 0) {
        start()
        await running
      }
    }
    // What is late is told below, as dropped.
    await within(options.closeTimeoutMs ?? 3_000, end()).catch(() => {})
    phase = 'closed'
    clearTimeout(timer)
    if (counted.waiting > 0) drop(counted.waiting)
    counted.waiting = 0
  }

  return { record, state: () => ({ ...counted, failing }), close }
}

const firstPauseMs = 200
const longestPauseMs = 5_000
/** Action of the record that denials beyond an actor's budget share. */
const several = '*'

/** A record that is not written yet. */
class Waiting {
  readonly key: string
  readonly createdAtMs: number
  readonly dueMs: number
  readonly written: Promise<void>
  readonly resolve: () => void
  readonly #denial: Denial
  readonly #id = newId()
  count = 0

  constructor(denial: Denial, key: string, nowMs: number, dueMs: number) {
    this.#denial = denial
    this.key = key
    this.createdAtMs = nowMs
    this.dueMs = Math.max(nowMs, dueMs)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.written = promise
    this.resolve = resolve
  }

  /** To be made once it grows no more. */
  entry(): IdentifiedEntry {
    const { count, createdAtMs } = this
    return { ...this.#denial, id: this.#id, createdAtMs, kind: 'denial', count, before: null, after: null }
  }
}

function keyOf({ actor, action, reason, resource, address }: Denial): string {
  return JSON.stringify([actor, action, reason, resource, address])
}

/** What is left of a denial beyond its actor's budget. */
function folded({ actor, reason, organizationId }: Denial): Denial {
  const [code = ''] = reason.split(' ', 1)
  return {
    actor,
    action: several,
    reason: code,
    resource: '',
    organizationId,
    requestId: '',
    address: '',
    userAgent: '',
  }
}
