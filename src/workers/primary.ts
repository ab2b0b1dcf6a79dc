/**
 * The primary process of `tollgate serve --workers n`. It takes connections and hands them to workers in turn, starts
 * workers, replaces those that die, restarts them one by one, and tells each of them about all. It holds no gate and
 * reads no call, so nothing that a call does can end it.
 *
 * A worker has a **slot**, the lowest that is free, which names its folder and its lines in the log. While workers are
 * restarted there is one more of them.
 */
import cluster from 'node:cluster'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Logger } from 'pino'
import type { Closers } from '../app/closers.ts'
import { openHost } from '../app/stores.ts'
import type { Config } from '../config.ts'
import { pause } from '../pause.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { within } from '../within.ts'
import { AllFigures } from './all-figures.ts'
import { Member } from './member.ts'
import type { Seat, ToPrimary } from './messages.ts'
import { restartPauseMs, settledMs } from './restart-pause.ts'
import { servingOf, type WorkersView } from './shared-view.ts'
import { workerArguments } from './worker-arguments.ts'

/** A running gate of several processes. */
export interface Primary {
  /** Ends all workers within the drain window. Idempotent. */
  close(): Promise<void>
}

/**
 * Starts as many workers as the configuration says; SIGHUP restarts them one by one. Throws, with nothing left running,
 * when one of them cannot start: what one cannot do the others cannot do either, so the first one tries alone.
 */
export async function startPrimary(config: Config): Promise<Primary> {
  const log = createLogger({ level: config.logLevel })
  for (const warning of config.warnings) log.warn(warning)
  const closers: Closers = []
  const primary = new ClusterPrimary(config, log, closers)
  process.on('SIGHUP', () => void primary.restart())
  try {
    await primary.start({ port: await settledPort(config), database: await openHost(config, log, closers) })
  } catch (error) {
    await primary.close()
    throw error
  }
  return primary
}

/** Workers that start later must get the port that the first one got. */
async function settledPort({ server: { host, port } }: Config): Promise<number> {
  if (port !== 0) return port
  const probe = createServer().listen({ host, port })
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  await once(probe, 'close')
  if (address === null || typeof address === 'string') throw new Error('the listener has no address')
  return address.port
}

/**
 * Threads of a worker share so many heaps of glibc's allocator. Its own limit is eight for each core, and a heap keeps what
 * it once got: 30 to 50 MiB more under load, and no CPU time less.
 */
const allocatorHeaps = { MALLOC_ARENA_MAX: '2' }

/** How much longer than the drain window a worker may take to write what is left and to end. */
const endMs = 30_000

class ClusterPrimary implements Primary {
  readonly #config: Config
  readonly #log: Logger
  readonly #closers: Closers
  #seat: Omit<Seat, 'slot'> = { port: 0, database: undefined }
  /** By slot. */
  readonly #members = new Map<number, Member>()
  /** Slots between two processes, and since when. */
  readonly #vacant = new Map<number, number>()
  /** Of each slot: processes that died, and how many of them in a row that did not live long. */
  readonly #deaths = new Map<number, { readonly all: number; readonly inRow: number }>()
  readonly #closing = new AbortController()
  readonly #figures: AllFigures
  #replaced = 0
  #restarted = 0
  #restarting: Promise<void> | undefined
  #restartAgain = false
  #ended: Promise<void> | undefined

  constructor(config: Config, log: Logger, closers: Closers) {
    this.#config = config
    this.#log = log
    this.#closers = closers
    const metrics = createMetrics()
    let silent = 0
    metrics.setSources({
      workers: () => {
        const view = this.#view()
        return {
          expected: view.expected,
          serving: servingOf(view),
          silent,
          replaced: this.#replaced,
          restarted: this.#restarted,
        }
      },
    })
    this.#figures = new AllFigures({
      asked: () => [...this.#members.values()].filter(({ state }) => state !== 'starting'),
      own: (silentNow) => {
        silent = silentNow
        return metrics.figures()
      },
      log,
    })
    cluster.setupPrimary({ serialization: 'advanced', execArgv: workerArguments(process.execArgv) })
  }

  async start(seat: Omit<Seat, 'slot'>): Promise<void> {
    this.#seat = seat
    const address = await this.#launch(1).served
    const others = Array.from({ length: this.#config.workers - 1 }, (_, index) => this.#launch(index + 2).served)
    await Promise.all(others)
    this.#log.info({ address, workers: this.#config.workers }, 'serving')
  }

  /** Replaces every worker by a new one, each when the new one serves; asked meanwhile, once more after it. */
  restart(): Promise<void> {
    this.#restartAgain = this.#restarting !== undefined
    this.#restarting ??= this.#restartAll().finally(() => {
      this.#restarting = undefined
      if (this.#restartAgain) void this.restart()
    })
    return this.#restarting
  }

  close(): Promise<void> {
    this.#ended ??= this.#end()
    return this.#ended
  }

  async #end(): Promise<void> {
    this.#closing.abort()
    this.#tellAll()
    const limitMs = this.#config.server.drainMs + endMs
    await Promise.all(
      [...this.#members.values()].map(async (member) => {
        member.tell({ kind: 'leave' })
        await within(limitMs, member.ended).catch(() => {
          this.#log.error({ worker: member.slot, pid: member.pid }, 'a worker did not end in time and is killed')
          member.kill()
        })
      }),
    )
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      await closer().catch((err: unknown) => this.#log.error({ err }, 'a part did not end well'))
    }
  }

  #launch(slot: number): Member {
    const child = cluster.fork(allocatorHeaps)
    const member: Member = new Member(slot, child, (message) => this.#hear(member, message))
    this.#members.set(slot, member)
    this.#vacant.delete(slot)
    void member.ended.then((how) => this.#gone(member, how))
    this.#tellAll()
    return member
  }

  #hear(member: Member, message: ToPrimary): void {
    switch (message.kind) {
      case 'hello':
        if (this.#closing.signal.aborted) member.kill()
        else member.tell({ kind: 'start', seat: { ...this.#seat, slot: member.slot }, view: this.#view() })
        break
      case 'serving':
        this.#tellAll()
        break
      case 'leaving':
        this.#succeed(member)
        break
      case 'farewell':
        this.#figures.farewell(member.id, message.figures)
        break
      case 'gather':
        void this.#figures.page().then((text) => member.tell({ kind: 'page', id: message.id, text }))
    }
  }

  #gone(member: Member, how: string): void {
    const { slot, pid, state, sinceMs } = member
    this.#figures.ended(member.id)
    this.#members.delete(slot)
    if (state === 'serving' && !this.#closing.signal.aborted) {
      this.#log.error({ worker: slot, pid, how }, 'a worker died; another one takes its place')
      this.#replaced += 1
      this.#died(slot, Date.now() - sinceMs)
      void this.#fill(slot)
    }
    this.#tellAll()
  }

  #died(slot: number, livedMs: number): void {
    const { all, inRow } = this.#deaths.get(slot) ?? { all: 0, inRow: 0 }
    this.#deaths.set(slot, { all: all + 1, inRow: livedMs < settledMs ? inRow + 1 : 1 })
    this.#vacant.set(slot, Date.now())
  }

  /** Tries, with growing pauses, until a process serves in the slot. */
  async #fill(slot: number): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      const { inRow } = this.#deaths.get(slot) ?? { inRow: 0 }
      await pause(restartPauseMs(inRow), signal)
      if (signal.aborted) return
      const member = this.#launch(slot)
      try {
        await member.served
        return
      } catch (error) {
        if (signal.aborted) return
        this.#died(slot, 0)
        this.#log.error({ worker: slot, reason: messageOf(error) }, 'a worker cannot start; it is tried again')
      }
      this.#tellAll()
    }
  }

  /** A worker leaves by itself: another one comes at once. */
  #succeed(member: Member): void {
    if (member.state !== 'serving' || this.#closing.signal.aborted) return
    member.state = 'leaving'
    this.#restarted += 1
    const slot = this.#freeSlot()
    this.#vacant.set(slot, Date.now())
    this.#tellAll()
    void this.#fill(slot)
  }

  async #restartAll(): Promise<void> {
    const before = [...this.#members.values()].filter(({ state }) => state === 'serving')
    for (const member of before) {
      if (this.#closing.signal.aborted) return
      // It died meanwhile, and the one in its place is new.
      if (member.state !== 'serving' || this.#members.get(member.slot) !== member) continue
      try {
        await this.#launch(this.#freeSlot()).served
      } catch (error) {
        const reason = messageOf(error)
        this.#log.error({ reason }, 'workers are not restarted: the new one cannot start, and those before go on')
        return
      }
      member.state = 'leaving'
      this.#restarted += 1
      this.#tellAll()
      member.tell({ kind: 'retire' })
      await member.ended
    }
    this.#log.info({ workers: before.length }, 'all workers were restarted')
  }

  #freeSlot(): number {
    let slot = 1
    while (this.#members.has(slot) || this.#vacant.has(slot)) slot += 1
    return slot
  }

  #view(): WorkersView {
    const deathsOf = (slot: number): number => this.#deaths.get(slot)?.all ?? 0
    const living = [...this.#members.values()].map(({ slot, pid, sinceMs, state }) => {
      return { slot, pid, sinceMs, state, deaths: deathsOf(slot) }
    })
    const dead = [...this.#vacant].map(([slot, sinceMs]) => {
      return { slot, pid: 0, sinceMs, state: 'dead' as const, deaths: deathsOf(slot) }
    })
    return {
      primary: process.pid,
      expected: this.#config.workers,
      workers: [...living, ...dead].sort((one, other) => one.slot - other.slot),
      replaced: this.#replaced,
      restarted: this.#restarted,
      isLeaving: this.#closing.signal.aborted,
    }
  }

  #tellAll(): void {
    const view = this.#view()
    for (const member of this.#members.values()) member.tell({ kind: 'view', view })
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
