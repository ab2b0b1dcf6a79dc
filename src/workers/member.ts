import type { Worker } from 'node:cluster'
import type { Figures } from '../telemetry/merge-figures.ts'
import type { Asked } from './all-figures.ts'
import { isToPrimary, type ToPrimary, type ToWorker } from './messages.ts'
import type { WorkerState } from './shared-view.ts'
import { passOnUntaken } from './untaken-connections.ts'

/** One worker process, as the primary sees it. */
export class Member implements Asked {
  readonly slot: number
  /** Unix milliseconds. */
  readonly sinceMs = Date.now()
  state: Exclude<WorkerState['state'], 'dead'> = 'starting'
  /** Resolves to the address when it takes calls; rejects, in words, when it ends before. */
  readonly served: Promise<string>
  /** Resolves when the process is gone, to how it ended: "exit code 1" or "SIGKILL". */
  readonly ended: Promise<string>
  readonly #worker: Worker
  readonly #figures = new Map<number, (figures: Figures) => void>()
  #asked = 0

  constructor(slot: number, worker: Worker, heard: (message: ToPrimary) => void) {
    this.slot = slot
    this.#worker = worker
    passOnUntaken(worker)
    const serving = Promise.withResolvers<string>()
    const ended = Promise.withResolvers<string>()
    let failure: string | undefined
    worker.on('message', (message: unknown) => {
      if (!isToPrimary(message)) return
      if (message.kind === 'failed') failure = message.message
      if (message.kind === 'figures') this.#figures.get(message.id)?.(message.figures)
      if (message.kind === 'serving') {
        this.state = 'serving'
        serving.resolve(message.address)
      }
      heard(message)
    })
    worker.once('exit', (code, signal) => {
      const how = signal ?? `exit code ${code}`
      serving.reject(new Error(failure ?? `Worker ${slot} ended with ${how} before it served.`))
      ended.resolve(how)
    })
    // What is said to a process that dies just then; its end is told by "exit".
    worker.on('error', () => {})
    // Whoever waits for it is told; nobody has to.
    serving.promise.catch(() => {})
    this.served = serving.promise
    this.ended = ended.promise
  }

  get id(): number {
    return this.#worker.id
  }

  get pid(): number {
    return this.#worker.process.pid ?? 0
  }

  tell(message: ToWorker): void {
    if (this.#worker.isConnected()) this.#worker.send(message, () => {})
  }

  /** Does not settle when the worker does not answer. */
  figures(): Promise<Figures> {
    this.#asked += 1
    const id = this.#asked
    const { promise, resolve } = Promise.withResolvers<Figures>()
    // What is late is of no use to the next one who asks.
    this.#figures.clear()
    this.#figures.set(id, resolve)
    this.tell({ kind: 'ask', id })
    return promise
  }

  kill(): void {
    this.#worker.process.kill('SIGKILL')
  }
}
