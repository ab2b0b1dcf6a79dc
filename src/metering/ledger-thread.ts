import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { describeError, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import type { EventBatch } from './event-batch.ts'
import { traceInserts } from './insert-spans.ts'
import type { BatchResult } from './ledger.ts'
import type { Drained, FromLedgerThread, LedgerThreadData, ToLedgerThread } from './ledger-messages.ts'
import type { LedgerWriter } from './ledger-writer.ts'

export interface LedgerThreadOptions extends LedgerThreadData {
  readonly log: StorageLog
  /** First and longest pause before a thread that ended is begun again; defaults 100 and 5 000. */
  readonly restartMinMs?: number
  readonly restartMaxMs?: number
}

/** What the thread drained of a usage log that it reads itself, in all its lives. */
export interface ThreadDrained {
  readonly written: number
  readonly duplicates: number
  readonly quarantined: number
  /** Unix milliseconds; undefined before the first commit. */
  readonly lastWriteMs: number | undefined
  readonly failing: string | undefined
  /** Whether its Redis answers. */
  readonly isConnected: boolean
}

/** How long its connections may take to close. */
const closeTimeoutMs = 3_000
/** How long its drain may take to stop: a little longer than the drain itself allows. */
const stopTimeoutMs = 6_000
/**
 * Its new objects, in MiB. A batch leaves so much garbage that the heap grows to 150 MiB without a bound, and to 80 with
 * this one, for 0.2 µs of CPU a record; 12 and 6 MiB give 60 and 50, for 1 µs.
 */
const resourceLimits = { maxYoungGenerationSizeMb: 24 }
/** A nudge more or less makes no difference to a drain that gathers for longer. */
const nudgeEveryMs = 25

/**
 * Writes batches in a thread of its own, so that calls do not wait while one is prepared: that takes 6 µs a record.
 *
 * A usage log in Redis it reads and acknowledges itself, on a connection of its own and under a name of its own.
 *
 * It holds nothing that is nowhere else. When it ends for whatever reason, what it was asked to write is rejected, as if
 * Postgres had gone away, and its owner asks again; what it had read of a log is delivered again to the next reader. After
 * a pause it is begun again.
 */
export class LedgerThread implements LedgerWriter {
  readonly #options: LedgerThreadOptions
  readonly #asked = new Map<number, PromiseWithResolvers<BatchResult>>()
  #lastId = 0
  #worker: Worker | undefined
  #failing: string | undefined
  #pauseMs: number
  #restarting: NodeJS.Timeout | undefined
  #nudging: NodeJS.Timeout | undefined
  #closed = false
  #drained: ThreadDrained = {
    written: 0,
    duplicates: 0,
    quarantined: 0,
    lastWriteMs: undefined,
    failing: undefined,
    isConnected: false,
  }

  private constructor(options: LedgerThreadOptions) {
    this.#options = options
    this.#pauseMs = options.restartMinMs ?? 100
  }

  /** Resolves when it runs; rejects when it cannot be begun at all. */
  static async start(options: LedgerThreadOptions): Promise<LedgerThread> {
    const thread = new LedgerThread(options)
    const worker = thread.#begin()
    await new Promise<void>((done, failed) => {
      worker.once('message', () => done())
      worker.once('exit', () => failed(new Error(thread.#failing)))
    }).catch(async (error: unknown) => {
      await thread.close()
      throw error
    })
    return thread
  }

  failing(): string | undefined {
    return this.#failing
  }

  async write(batch: EventBatch): Promise<BatchResult> {
    const worker = this.#worker
    if (worker === undefined) throw new Error(this.#failing ?? 'the thread that writes the ledger is closed')
    this.#lastId += 1
    const id = this.#lastId
    const asked = Promise.withResolvers<BatchResult>()
    this.#asked.set(id, asked)
    const events = batch.encoded()
    worker.postMessage({ kind: 'write', id, events } satisfies ToLedgerThread, [events.buffer])
    return asked.promise
  }

  /** What it drained by itself. */
  drained(): ThreadDrained {
    return { ...this.#drained, failing: this.#failing ?? this.#drained.failing }
  }

  /** This process appended to the usage log in Redis. */
  nudge(): void {
    if (this.#closed) return
    this.#nudging ??= setTimeout(() => {
      this.#nudging = undefined
      if (this.#worker !== undefined) post(this.#worker, { kind: 'nudge' })
    }, nudgeEveryMs)
  }

  /** Ends the drain of the usage log in Redis, after flushing what that still holds, within the bound; never throws. */
  async stopDrain(): Promise<void> {
    const worker = this.#worker
    if (worker === undefined) return
    const stopped = new Promise<void>((done) => {
      worker.on('message', ({ kind }: FromLedgerThread) => {
        if (kind === 'stopped') done()
      })
      worker.once('exit', () => done())
    })
    // What came last may not have been told of yet.
    post(worker, { kind: 'nudge' })
    post(worker, { kind: 'stop' })
    // What it did not get to stays in the log, for the next drain.
    await within(stopTimeoutMs, stopped).catch(() => {})
  }

  /** What it is writing is written, or rejected if that takes too long. Safe to call again. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#restarting)
    clearTimeout(this.#nudging)
    const worker = this.#worker
    if (worker === undefined) return
    const ended = once(worker, 'exit')
    post(worker, { kind: 'close' })
    await within(closeTimeoutMs, ended).catch(() => worker.terminate())
  }

  #begin(): Worker {
    const { target, applicationName, maxConnections, stream } = this.#options
    const workerData: LedgerThreadData = { target, applicationName, maxConnections, stream }
    const worker = new Worker(entry, { workerData, resourceLimits })
    let problem: string | undefined
    this.#worker = worker
    worker.on('message', (message: FromLedgerThread) => this.#hear(message))
    worker.on('error', (error) => {
      problem = describeError(error)
    })
    worker.once('exit', (code) => this.#ended(problem ?? `exit code ${code}`))
    return worker
  }

  #hear(message: FromLedgerThread): void {
    switch (message.kind) {
      case 'ready':
        if (this.#failing !== undefined) this.#options.log.info({}, 'the thread that writes the ledger runs again')
        this.#failing = undefined
        return
      case 'log':
        this.#options.log[message.level](message.fields, message.text)
        return
      case 'traced':
        traceInserts(message.traceparents, message.startMs, message.endMs, message.batchSize)
        return
      case 'drained':
        this.#works()
        this.#add(message.drained)
        return
      case 'state':
        this.#drained = { ...this.#drained, failing: message.failing, isConnected: message.isConnected }
        return
      case 'written':
        this.#works()
        this.#take(message.id)?.resolve(message.result)
        return
      case 'failed':
        this.#take(message.id)?.reject(new Error(message.problem))
        return
      case 'stopped':
    }
  }

  /** One that ends before its first batch, again and again, is begun less and less often. */
  #works(): void {
    this.#pauseMs = this.#options.restartMinMs ?? 100
  }

  #add({ written, duplicates, quarantined, atMs }: Drained): void {
    const before = this.#drained
    this.#drained = {
      ...before,
      written: before.written + written,
      duplicates: before.duplicates + duplicates,
      quarantined: before.quarantined + quarantined,
      lastWriteMs: atMs,
    }
  }

  #take(id: number): PromiseWithResolvers<BatchResult> | undefined {
    const asked = this.#asked.get(id)
    this.#asked.delete(id)
    return asked
  }

  #ended(problem: string): void {
    this.#worker = undefined
    this.#drained = { ...this.#drained, failing: undefined, isConnected: false }
    const failing = `the thread that writes the ledger ended: ${problem}`
    for (const id of [...this.#asked.keys()]) this.#take(id)?.reject(new Error(failing))
    if (this.#closed) return
    this.#failing = failing
    const { log, restartMaxMs = 5_000 } = this.#options
    log.error({ problem, pauseMs: this.#pauseMs }, 'the thread that writes the ledger ended; it is begun again')
    this.#restarting = setTimeout(() => this.#begin(), this.#pauseMs)
    this.#pauseMs = Math.min(restartMaxMs, 2 * this.#pauseMs)
  }
}

/** The bundle has the thread in a file of its own. */
const entry = new URL(import.meta.url.endsWith('.ts') ? './ledger-worker.ts' : './ledger-worker.js', import.meta.url)

function post(worker: Worker, message: ToLedgerThread): void {
  worker.postMessage(message)
}
