import { rm } from 'node:fs/promises'
import type { Logger } from 'pino'
import type { FailoverLimits } from '../limits/failover-limits.ts'
import { createDrain } from '../metering/drain.ts'
import type { LedgerWriter } from '../metering/ledger-writer.ts'
import { FolderInUse, lockFolder } from '../storage/folder-lock.ts'
import { describeError } from '../storage/postgres.ts'
import type { WorkerLink } from '../workers/worker-link.ts'
import { awayFolder, slotsWithFolder } from './away-folders.ts'

export interface LeftoversOptions {
  readonly dataDir: string
  /** Undefined: this process is alone, and its slot is the first. */
  readonly worker: Pick<WorkerLink, 'slot' | 'view'> | undefined
  /** Opens what is in a folder. */
  readonly open: (folder: string) => Promise<FailoverLimits>
  readonly ledger: LedgerWriter
  readonly log: Logger
  /** Pause between two looks. Default 30 s. */
  readonly everyMs?: number
}

/** How long one folder may take to reach the ledger before this process goes on; another look tries again. */
const folderMs = 60_000

/**
 * Takes up what workers without a successor left in their folders while Redis was away: those of a start with more
 * workers, and those whose slot is free. Calls are settled, usage goes to the ledger, and the folder is removed. Looks
 * before this process serves, and then, beside other workers, every half minute; whoever has the lock of a folder does it.
 */
export async function startLeftovers(options: LeftoversOptions): Promise<{ stop(): Promise<void> }> {
  const { dataDir, worker, log, everyMs = 30_000 } = options
  let isStopping = false
  let stopDrain: () => Promise<void> = async () => {}

  async function look(): Promise<void> {
    const slots = await slotsWithFolder(dataDir)
    for (const slot of slots) if (!isStopping && isFree(slot, worker)) await takeUp(awayFolder({ dataDir }, slot))
  }

  async function takeUp(folder: string): Promise<void> {
    const unlock = await lockFolder(folder).catch((error: unknown) => {
      // Who has it takes up what is in there; anything else keeps usage from the ledger.
      if (!(error instanceof FolderInUse))
        log.error({ folder, reason: describeError(error) }, 'what an earlier worker left cannot be taken up')
    })
    if (unlock === undefined) return
    try {
      if (!(await isPaid(folder))) return log.warn({ folder }, 'usage of an earlier worker could not all be booked yet')
      await rm(folder, { recursive: true, force: true })
      log.info({ folder }, 'took up what an earlier worker left')
    } finally {
      await unlock()
    }
  }

  async function isPaid(folder: string): Promise<boolean> {
    const limits = await options.open(folder)
    const drain = createDrain({ usageLog: limits.localUsageLog, ledger: options.ledger, log })
    stopDrain = () => drain.stop()
    drain.start()
    try {
      return (await drain.drained(folderMs)) && (await limits.isPaid())
    } finally {
      await drain.stop()
      await limits.close()
    }
  }

  const lookOnce = (): Promise<void> =>
    look().catch((error: unknown) =>
      log.error({ reason: describeError(error) }, 'what workers left cannot be taken up'),
    )
  let looking = lookOnce()
  await looking
  const timer = setInterval(() => {
    looking = looking.then(lookOnce)
  }, everyMs)
  // A process that is alone has looked, and nobody else leaves anything.
  if (worker === undefined) clearInterval(timer)
  return {
    async stop() {
      isStopping = true
      clearInterval(timer)
      await stopDrain()
      await looking
    },
  }
}

/** Whether no process has the slot, or will have it in a moment. */
function isFree(slot: number, worker: LeftoversOptions['worker']): boolean {
  if (worker === undefined) return slot !== 1
  return slot !== worker.slot && !worker.view().workers.some((other) => other.slot === slot)
}
