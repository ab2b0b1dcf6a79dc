import type { Subscription } from '../storage/notifications.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import { type ControlVersion, selectCatalog, selectControlVersion } from './registry-store.ts'
import { buildSnapshot, emptySnapshot, type Snapshot, type SnapshotSource } from './snapshot.ts'

export interface SnapshotsOptions {
  readonly sql: Sql
  readonly log: StorageLog
  /** Pause between two looks at control_version, in milliseconds. Default 1,000. */
  readonly pollMs?: number
  /** Longest wait of one refresh, in milliseconds. Default 3,000. */
  readonly timeoutMs?: number
  /** Unix milliseconds; decides which prices are in force. Default Date.now. */
  readonly now?: () => number
  /** Told after `current()` moved to another version of the control plane, keys included; must not throw or wait. */
  readonly onChange?: (snapshot: Snapshot) => void
}

export interface Snapshots extends SnapshotSource {
  /** Loads the first snapshot, then follows. Rejects when the first load fails. */
  start(): Promise<void>
  /**
   * Resolves when `current()` holds every change that was committed before the call, or when that failed: a failure is
   * logged, shows in `staleSinceMs`, and is mended by a later poll. Never rejects; waits at most twice `timeoutMs`.
   */
  refresh(): Promise<void>
  /** Unix milliseconds since when the control plane could not be read; undefined while all is well. For health. */
  staleSinceMs(): number | undefined
  /** Ends the listening and the polling; `current()` stays as it is. */
  close(): Promise<void>
}

/**
 * Keeps one snapshot of the control plane in memory and current. A row with a version number is the truth, looked at
 * every `pollMs`; a notification only spares the wait, so that nothing depends on its arrival. While Postgres is away
 * the last snapshot stays.
 */
export function createSnapshots(options: SnapshotsOptions): Snapshots {
  const { sql, log, pollMs = 1_000, timeoutMs = 3_000, now = Date.now, onChange } = options
  let snapshot = emptySnapshot
  let seen: ControlVersion = { version: 0, catalogVersion: 0 }
  let staleSince: number | undefined
  let closed = false
  let timer: NodeJS.Timeout | undefined
  let subscription: Subscription | undefined
  let running: Promise<void> | undefined
  let following: Promise<void> | undefined
  /** A look that outlived its timeout; the next one waits for its end, so that they never pile up. */
  let pending: Promise<void> | undefined

  async function look(): Promise<void> {
    const latest = await selectControlVersion(sql)
    if (latest.version === seen.version) return
    if (latest.catalogVersion === seen.catalogVersion) {
      seen = latest
      snapshot = { ...snapshot, version: latest.version }
    } else {
      const catalog = await selectCatalog(sql)
      seen = { version: catalog.version, catalogVersion: catalog.catalogVersion }
      snapshot = buildSnapshot({ ...catalog, nowMs: now() })
    }
    onChange?.(snapshot)
  }

  function rebuilt(known: Snapshot): Snapshot {
    return buildSnapshot({
      version: known.version,
      services: known.servicesById.values(),
      splits: known.splits.values(),
      organizations: known.organizationsById.values(),
      projects: known.projectsById.values(),
      consumers: known.consumersById.values(),
      users: known.usersBySubject.values(),
      limitRules: [...known.limitRules.values()].flat(),
      policies: known.policies,
      nowMs: now(),
    })
  }

  async function attempt(): Promise<void> {
    if (pending !== undefined) await within(timeoutMs, pending)
    pending = look().finally(() => {
      pending = undefined
    })
    await within(timeoutMs, pending)
  }

  async function run(): Promise<void> {
    // A price that is known comes into force by the clock alone, also while Postgres is away.
    if (snapshot.nextPriceChangeMs <= now()) snapshot = rebuilt(snapshot)
    try {
      await attempt()
      if (staleSince !== undefined) log.info({ staleForMs: now() - staleSince }, 'the control plane can be read again')
      staleSince = undefined
    } catch (error) {
      if (staleSince === undefined) {
        staleSince = now()
        log.warn({ reason: describeError(error) }, 'the control plane cannot be read: going on with what is known')
      }
    }
  }

  function refresh(): Promise<void> {
    if (closed) return Promise.resolve()
    if (running === undefined) return begin()
    // The one that runs may have looked before the caller's change: one more, shared by all who ask meanwhile.
    following ??= running.then(() => {
      following = undefined
      return begin()
    })
    return following
  }

  function begin(): Promise<void> {
    const mine = run().then(() => {
      if (running === mine) running = undefined
    })
    running = mine
    return mine
  }

  function schedule(): void {
    if (closed) return
    timer = setTimeout(() => void refresh().then(schedule), pollMs)
  }

  return {
    current: () => snapshot,
    refresh,
    staleSinceMs: () => staleSince,
    async start() {
      await attempt()
      schedule()
      subscription = sql.listen('tollgate_control', () => void refresh())
    },
    async close() {
      closed = true
      clearTimeout(timer)
      const ending = Promise.all([following ?? running, subscription?.close()])
      // A look that does not end holds up no shutdown, and nothing needs what it finds.
      await within(timeoutMs, ending).catch(() => {})
    },
  }
}
