/**
 * The drain carries usage events from the usage log to the ledger: read → write → acknowledge, batch by batch.
 *
 * At least once: a batch is acknowledged only after its commit, and repeated until then, so that a crash anywhere
 * repeats it; the ledger's dedupe makes that a no-op. While Postgres is away the batch is held and tried again with a
 * growing pause; the log keeps everything behind it.
 *
 * A few **lanes** do that beside each other, each with a batch of its own: while one waits for Postgres, the next one
 * prepares its batch. They read one after the other. The order of the log is not kept, and nothing needs it.
 */
import type { UsageBatch, UsageLog } from '../limits/limits.ts'
import { pause } from '../pause.ts'
import { describeError, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import { traceInserts } from './insert-spans.ts'
import type { BatchResult } from './ledger.ts'
import type { LedgerWriter } from './ledger-writer.ts'
import { sweepUntil } from './sweep.ts'
import { createTurns } from './turns.ts'

export interface DrainOptions {
  readonly usageLog: UsageLog
  readonly ledger: LedgerWriter
  readonly log: StorageLog
  /** Told of each batch after its commit; must not throw. */
  readonly onBatch?: (result: BatchResult, durationMs: number) => void
  /** Events in a batch at most; default 2000. */
  readonly batchMax?: number
  /** Batches on their way at the same time, each with a connection while it is written; default 2. */
  readonly lanes?: number
  /** How long one read waits for the first event; default 500. */
  readonly readWaitMs?: number
  /**
   * Pause after reading a batch that was not full, so that the next one gathers more than the one event that came
   * meanwhile; default 250. Each batch costs a transaction and an acknowledgement, however small it is, and holds up the
   * few calls that come while it is written.
   */
  readonly lingerMs?: number
  /** Ceiling for one write, after which it is tried again; default 35 000, longer than the statement timeout. */
  readonly writeTimeoutMs?: number
  /** Shows the write of a batch in the traces of the events that it wrote; default {@link traceInserts}. */
  readonly trace?: typeof traceInserts
  /** Pause between two looks for abandoned reservations; default 1 000. False: somebody else looks for them. */
  readonly sweepEveryMs?: number | false
  /** First and longest pause after a failure; defaults 100 and 5 000. */
  readonly retryMinMs?: number
  readonly retryMaxMs?: number
  /** How long stop() may flush; default 5 000. */
  readonly stopTimeoutMs?: number
  /** Unix milliseconds. */
  readonly now?: () => number
  /** 0 to 1; spreads the pauses of several replicas. */
  readonly random?: () => number
}

export interface DrainState {
  /** Events not yet in the ledger, as of the last sweep. */
  readonly backlog: number
  /** Unix milliseconds of the last commit; undefined before the first. */
  readonly lastWriteMs: number | undefined
  /** What keeps the drain from going on; undefined while all is well. */
  readonly failing: string | undefined
  /** Since the start of this process. */
  readonly written: number
  readonly duplicates: number
  readonly quarantined: number
}

/** A drain that its owner only starts and stops. */
export interface RunningDrain {
  /** Starts the loop and the sweep. */
  start(): void
  /** Ends both after flushing what the log still holds, within the bound; what is left stays in the log. Never throws. */
  stop(): Promise<void>
  /** True once the log is empty; false when that takes longer than `timeoutMs`, default 30 000. Needs a started drain. */
  drained(timeoutMs?: number): Promise<boolean>
  state(): DrainState
}

export interface Drain extends RunningDrain {
  /** One batch, or what is left of a failed one. Returns its size; throws on failure. Not beside a started loop. */
  drainOnce(): Promise<number>
}

/** See the head of this file. Constructed idle. */
export function createDrain(options: DrainOptions): Drain {
  const { usageLog, ledger, log, trace = traceInserts, sweepEveryMs } = options
  const batchMax = options.batchMax ?? 2_000
  const readWaitMs = options.readWaitMs ?? 500
  const lingerMs = options.lingerMs ?? 250
  const writeTimeoutMs = options.writeTimeoutMs ?? 35_000
  const now = options.now ?? Date.now
  const random = options.random ?? Math.random
  const stopping = new AbortController()
  const first = newLane()
  const lanes = [first, ...Array.from({ length: (options.lanes ?? 2) - 1 }, newLane)]
  const reading = createTurns()
  let loops: Promise<unknown> = Promise.resolve()
  let state: DrainState = {
    backlog: 0,
    lastWriteMs: undefined,
    failing: undefined,
    written: 0,
    duplicates: 0,
    quarantined: 0,
  }

  async function step(lane: Lane, read: () => Promise<UsageBatch | undefined>): Promise<number> {
    if (lane.held === undefined) {
      const batch = await read()
      if (batch === undefined || batch.size === 0) return 0
      lane.held = { batch, isWritten: false }
    }
    const { batch } = lane.held
    if (!lane.held.isWritten) {
      await write(batch)
      lane.held = { batch, isWritten: true }
    }
    await batch.acknowledge()
    lane.held = undefined
    return batch.size
  }

  /** Waits for its turn and for events; when few came, the next reader waits for more of them. */
  async function readInTurn(): Promise<UsageBatch | undefined> {
    const done = await reading.take()
    let size = 0
    try {
      if (stopping.signal.aborted) return undefined
      const batch = await usageLog.read(batchMax, readWaitMs, stopping.signal)
      size = batch.size
      return batch
    } finally {
      if (size > 0 && size < batchMax) void pause(lingerMs, stopping.signal).then(done)
      else done()
    }
  }

  /** A read that waits 1 ms: 0 means "for ever" to some stores. */
  function readAtOnce(signal: AbortSignal): Promise<UsageBatch> {
    return usageLog.read(batchMax, 1, signal)
  }

  async function write(batch: UsageBatch): Promise<void> {
    const startMs = now()
    const result = await within(writeTimeoutMs, ledger.write(batch))
    const endMs = now()
    state = {
      ...state,
      lastWriteMs: endMs,
      written: state.written + result.written,
      duplicates: state.duplicates + result.duplicates,
      quarantined: state.quarantined + result.quarantined,
    }
    if (result.quarantined > 0) log.error({ events: result.quarantined }, 'usage events went to quarantine')
    trace(result.traced, startMs, endMs, batch.size)
    options.onBatch?.(result, endMs - startMs)
  }

  async function loop(lane: Lane): Promise<void> {
    const retryMinMs = options.retryMinMs ?? 100
    const retryMaxMs = options.retryMaxMs ?? 5_000
    let failures = 0
    while (!stopping.signal.aborted) {
      try {
        await step(lane, readInTurn)
        failures = 0
        if (lane.failing !== undefined) setFailing(lane, undefined)
      } catch (error) {
        if (stopping.signal.aborted) return
        setFailing(lane, describeError(error))
        failures++
        const ceilingMs = Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(failures - 1, 20))
        await pause(ceilingMs * (0.5 + random() / 2), stopping.signal)
      }
    }
  }

  /** Of one lane; what is said and logged is about all of them. */
  function setFailing(lane: Lane, failing: string | undefined): void {
    const before = state.failing
    lane.failing = failing
    state = { ...state, failing: lanes.find((other) => other.failing !== undefined)?.failing }
    if (before === undefined) log.warn({ failing }, 'the usage drain fails and will try again')
    else if (state.failing === undefined) log.info({}, 'the usage drain works again')
  }

  function sweep(everyMs: number | undefined): Promise<void> {
    const onBacklog = (backlog: number): void => {
      state = { ...state, backlog }
    }
    return sweepUntil(stopping.signal, { usageLog, log, everyMs, onBacklog })
  }

  async function flush(deadlineMs: number): Promise<void> {
    const patience = AbortSignal.timeout(Math.max(1, deadlineMs - now()))
    // A lane that holds a batch writes that; then it reads like the others, until nothing comes.
    for (const lane of lanes) {
      let size = 1
      while (size > 0 && !patience.aborted) size = await step(lane, () => readAtOnce(patience))
    }
  }

  return {
    start: () => {
      loops = Promise.all([...lanes.map(loop), ...(sweepEveryMs === false ? [] : [sweep(sweepEveryMs)])])
    },
    stop: async () => {
      const deadlineMs = now() + (options.stopTimeoutMs ?? 5_000)
      stopping.abort()
      try {
        await within(deadlineMs - now(), loops)
        await within(deadlineMs - now(), flush(deadlineMs))
      } catch (error) {
        log.warn({ failing: describeError(error) }, 'the usage drain stopped before its log was empty')
      }
    },
    drainOnce: () => step(first, () => readAtOnce(stopping.signal)),
    drained: async (timeoutMs = 30_000) => {
      const deadlineMs = now() + timeoutMs
      while (!stopping.signal.aborted && now() < deadlineMs) {
        // A log that cannot be asked is not empty.
        const backlog = await usageLog.backlog().catch(() => undefined)
        if (backlog === 0 && lanes.every(({ held }) => held === undefined)) return true
        await pause(20, stopping.signal)
      }
      return false
    },
    state: () => ({ ...state, failing: state.failing ?? ledger.failing() }),
  }
}

interface Lane {
  held: { readonly batch: UsageBatch; readonly isWritten: boolean } | undefined
  /** Why its last try failed. */
  failing: string | undefined
}

function newLane(): Lane {
  return { held: undefined, failing: undefined }
}
