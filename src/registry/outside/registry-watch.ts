/**
 * Looks at the outside registry again and again while the process runs: takes over what it lists, repairs what it has of our
 * own services. One replica at a time does it, the one that holds the advisory lock; when it is gone, another takes over.
 * What was taken over is in Postgres: while the registry is away, calls go on by what was known.
 *
 * A look that fails is followed by others after pauses that double, with jitter, so that a registry that comes back is not
 * met by everybody at once; a key that is refused is shown seldom, and told once.
 */
import { RegistryError } from '../../registrations/registry-error.ts'
import { watchAlone } from '../../storage/lone-watch.ts'
import { describeError, type Sql, type StorageLog } from '../../storage/postgres.ts'

export interface RegistryWatchOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** URL of the registry, for people. */
  readonly url: string
  /** One look, and what came of it. */
  readonly look: (signal: AbortSignal) => Promise<Look>
  readonly everyMs: number
  /** Unix milliseconds. */
  readonly now: () => number
  /** 0 to 1; default Math.random. */
  readonly random?: () => number
  /** Longest that a look may take; default two minutes. */
  readonly lookTimeoutMs?: number
  /** Longest that `stop` waits for the look that runs; default 5 000. */
  readonly stopTimeoutMs?: number
}

/** What a look at the registry found. */
export interface Look {
  /** Services that it lists, and those that were taken over from it and live. */
  readonly listed: number
  readonly followed: number
  /** Services that its list lacks, and that stay as they are because it lacks too many. */
  readonly heldBack: number
  /** What could not be taken over or told, and why; by name@version. */
  readonly passedOver: ReadonlyMap<string, string>
  /** What the look changed, for the log; empty: nothing. */
  readonly done: Readonly<Record<string, number>>
}

export interface RegistryState {
  /** Of the last look that succeeded; undefined before the first. */
  readonly last: (Look & { readonly atMs: number }) | undefined
  /** Why looks fail at the moment; undefined while they succeed. */
  readonly failing: string | undefined
}

export interface RegistryWatch {
  /** Undefined while another replica is the one that looks. */
  state(): RegistryState | undefined
  /** Begins no other look, and ends the one that runs, for a limited time. */
  stop(): Promise<void>
}

/** Any constant will do, as long as every release uses the same. */
const lockId = 7_161_060

const firstPauseMs = 1_000
/** A key that is refused is shown again after pauses that may be this many times as long. */
const keyFactor = 5

export function watchRegistry(options: RegistryWatchOptions): RegistryWatch {
  const { sql, log, url, everyMs, now, random = Math.random } = options
  const { lookTimeoutMs = 120_000, stopTimeoutMs = 5_000 } = options
  const longestPauseMs = Math.max(everyMs, Math.min(60_000, 10 * everyMs))
  let state: RegistryState | undefined
  let failures = 0
  let told = ''

  /** Returns the pause before the next look. */
  async function lookOnce(signal: AbortSignal): Promise<number> {
    try {
      const look = await options.look(AbortSignal.any([signal, AbortSignal.timeout(lookTimeoutMs)]))
      if (failures > 0) log.info({ registry: url }, 'the outside registry can be read again')
      failures = 0
      state = { last: { ...look, atMs: now() }, failing: undefined }
      tell(look)
      return everyMs * (0.9 + random() * 0.2)
    } catch (error) {
      if (signal.aborted) return 0
      return failed(error)
    }
  }

  function failed(error: unknown): number {
    const isKey = error instanceof RegistryError && error.kind === 'key'
    const reason = describeError(error)
    if (state?.failing !== reason) {
      const text = 'the outside registry cannot be read: going on with what is known'
      if (isKey) log.error({ registry: url, reason }, text)
      else if (failures === 0) log.warn({ registry: url, reason }, text)
    }
    failures += 1
    state = { last: state?.last, failing: reason }
    const most = isKey ? keyFactor * longestPauseMs : longestPauseMs
    const asked = error instanceof RegistryError ? (error.retryAfterMs ?? 0) : 0
    const doubled = Math.min(most, firstPauseMs * 2 ** Math.min(failures - 1, 20))
    return Math.max(doubled * (0.5 + random() / 2), Math.min(asked, most))
  }

  /** What was done is told each time, what cannot be done only when it is something else than before. */
  function tell({ done, heldBack, passedOver }: Look): void {
    if (Object.values(done).some((count) => count > 0)) {
      log.info({ registry: url, ...done }, 'followed the outside registry')
    }
    const reasons = Object.fromEntries([...passedOver].slice(0, 20))
    const text = JSON.stringify({ heldBack, reasons })
    if (text === told) return
    told = text
    if (passedOver.size > 0)
      log.warn({ registry: url, services: passedOver.size, reasons }, 'services were passed over')
    if (heldBack > 0) {
      log.error(
        { registry: url, heldBack },
        'the list of the outside registry lacks too many services: none is touched',
      )
    }
  }

  const watching = watchAlone({
    sql,
    log,
    lockId,
    everyMs,
    look: lookOnce,
    onTurn(isOurs) {
      state = isOurs ? { last: undefined, failing: undefined } : undefined
    },
    texts: {
      failed: 'no replica could be chosen to look at the registry',
      late: 'stopped before the look at the registry was over',
    },
    stopTimeoutMs,
  })
  return { state: () => state, stop: watching.stop }
}
