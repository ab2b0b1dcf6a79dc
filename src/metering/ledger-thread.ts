import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { fieldsOf } from '../limits/event-codec.ts'
import { describeError, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import type { BatchResult } from './ledger.ts'
import type { FromLedgerThread, LedgerThreadData, ToLedgerThread } from './ledger-messages.ts'
import type { LedgerWriter } from './ledger-writer.ts'
import type { UsageEvent } from './usage-event.ts'

export interface LedgerThreadOptions extends LedgerThreadData {
  readonly log: StorageLog
  /** First and longest pause before a thread that ended is begun again; defaults 100 and 5 000. */
  readonly restartMinMs?: number
  readonly restartMaxMs?: number
}

/** How long its connections may take to close. */
const closeTimeoutMs = 3_000

/**
 * Writes batches in a thread of its own, so that calls do not wait while one is prepared: that takes 6 µs a record.
 *
 * It holds nothing but what it is asked to write. When it ends for whatever reason, what it had is rejected, as if
 * Postgres had gone away, and its owner asks again; after a pause, it is begun again.
 */
export class LedgerThread implements LedgerWriter {
  readonly #options: LedgerThreadOptions
  readonly #asked = new Map<number, PromiseWithResolvers<BatchResult>>()
  #lastId = 0
  #worker: Worker | undefined
  #failing: string | undefined
  #pauseMs: number
  #restarting: NodeJS.Timeout | undefined
  #closed = false

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

  async write(events: readonly UsageEvent[]): Promise<BatchResult> {
    const worker = this.#worker
    if (worker === undefined) throw new Error(this.#failing ?? 'the thread that writes the ledger is closed')
    this.#lastId += 1
    const id = this.#lastId
    const asked = Promise.withResolvers<BatchResult>()
    this.#asked.set(id, asked)
    post(worker, { kind: 'write', id, events: JSON.stringify(events.map(fieldsOf)) })
    return asked.promise
  }

  /** What it is writing is written, or rejected if that takes too long. Safe to call again. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#restarting)
    const worker = this.#worker
    if (worker === undefined) return
    const ended = once(worker, 'exit')
    post(worker, { kind: 'close' })
    await within(closeTimeoutMs, ended).catch(() => worker.terminate())
  }

  #begin(): Worker {
    const { target, applicationName, maxConnections } = this.#options
    const workerData: LedgerThreadData = { target, applicationName, maxConnections }
    const worker = new Worker(entry, { workerData })
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
      case 'written':
        // One that ends with its first batch, again and again, is begun less and less often.
        this.#pauseMs = this.#options.restartMinMs ?? 100
        this.#take(message.id)?.resolve(message.result)
        return
      case 'failed':
        this.#take(message.id)?.reject(new Error(message.problem))
    }
  }

  #take(id: number): PromiseWithResolvers<BatchResult> | undefined {
    const asked = this.#asked.get(id)
    this.#asked.delete(id)
    return asked
  }

  #ended(problem: string): void {
    this.#worker = undefined
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
