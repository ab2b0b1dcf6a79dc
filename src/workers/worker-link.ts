import cluster from 'node:cluster'
import type { Figures } from '../telemetry/merge-figures.ts'
import { within } from '../within.ts'
import { isToWorker, type Seat, type ToPrimary, type ToWorker } from './messages.ts'
import type { WorkersView } from './shared-view.ts'

/** What a worker's gate sees of the others. */
export interface WorkerLink extends Seat {
  /** As the primary last told. */
  view(): WorkersView
  /** The metrics page of all workers; rejects when the primary does not answer in time. */
  metricsOfAll(): Promise<string>
  /** Says where the figures of this worker come from. */
  figuresFrom(source: () => Promise<Figures>): void
}

/** The worker's end of the line to the primary. */
export interface PrimaryLine {
  /** Says hello, and resolves when the primary has said what to start with. */
  begin(): Promise<WorkerLink>
  /** Resolves when the message is on its way, or cannot be any more. */
  tell(message: ToPrimary): Promise<void>
  /** The last figures. */
  farewell(): Promise<void>
  /** Another worker serves in this one's place. */
  readonly retired: Promise<void>
  /** All workers leave, or the primary is gone. */
  readonly dismissed: Promise<void>
}

const pageTimeoutMs = 5_000

/** Opens the line; once a process, and only in one that the primary started. */
export function openPrimaryLine(): PrimaryLine {
  const started = Promise.withResolvers<Extract<ToWorker, { kind: 'start' }>>()
  const retired = Promise.withResolvers<void>()
  const dismissed = Promise.withResolvers<void>()
  const pages = new Map<number, (text: string) => void>()
  let pagesAsked = 0
  let isDismissed = false
  let view: WorkersView | undefined
  let figures: () => Promise<Figures> = async () => []

  function tell(message: ToPrimary): Promise<void> {
    return new Promise((resolve) => {
      // A primary that is gone is told by "disconnect".
      if (process.send === undefined || !process.connected) resolve()
      else process.send(message, undefined, undefined, () => resolve())
    })
  }

  function dismiss(): void {
    isDismissed = true
    dismissed.resolve()
  }

  function hear(message: ToWorker): void {
    switch (message.kind) {
      case 'start':
        view = message.view
        started.resolve(message)
        break
      case 'view':
        view = message.view
        break
      case 'retire':
        retired.resolve()
        break
      case 'leave':
        dismiss()
        break
      case 'ask':
        figures().then(
          (answer) => tell({ kind: 'figures', id: message.id, figures: answer }),
          // The primary waits for it no longer than for one that is late.
          () => {},
        )
        break
      case 'page':
        pages.get(message.id)?.(message.text)
    }
  }

  async function metricsOfAll(): Promise<string> {
    pagesAsked += 1
    const id = pagesAsked
    const { promise, resolve } = Promise.withResolvers<string>()
    pages.set(id, resolve)
    try {
      await tell({ kind: 'gather', id })
      return await within(pageTimeoutMs, promise)
    } finally {
      pages.delete(id)
    }
  }

  process.on('message', (message) => {
    if (isToWorker(message)) hear(message)
  })
  cluster.worker?.on('disconnect', () => {
    // It ended by a second signal, which ends everything.
    if (isDismissed) process.exit(1)
    // It was killed. Node would end this process here, with the calls that it has.
    if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true
    dismiss()
  })
  return {
    async begin() {
      await tell({ kind: 'hello' })
      const { seat, view: first } = await started.promise
      return {
        ...seat,
        view: () => view ?? first,
        metricsOfAll,
        figuresFrom(source) {
          figures = source
        },
      }
    },
    tell,
    farewell: async () => tell({ kind: 'farewell', figures: await figures() }),
    retired: retired.promise,
    dismissed: dismissed.promise,
  }
}
