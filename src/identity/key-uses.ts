import { BoundedMap } from '../bounded-map.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'

/** When a key was used, and from where. */
export interface KeyUse {
  readonly keyId: string
  /** Unix milliseconds. */
  readonly atMs: number
  readonly address: string
}

export interface KeyUsesOptions {
  /** Stores uses, of a key at most one at a time. */
  readonly write: (uses: readonly KeyUse[]) => Promise<void>
  readonly log: StorageLog
  /** Unix milliseconds. */
  readonly clock: () => number
  /** A key's uses within this time of one that was noted are not noted. Default 60,000. */
  readonly everyMs?: number
  /** How long a use waits for others that are written with it. Default 5,000. */
  readonly flushMs?: number
  /** Keys whose use is remembered, and whose use may wait. Default 100,000. */
  readonly maxKeys?: number
}

export interface KeyUses {
  /** Notes a use; never waits, and costs next to nothing for a key that was used a moment ago. */
  note(keyId: string, address: string): void
  /** Writes what waits, once, and ends. Never rejects. */
  stop(): Promise<void>
}

/**
 * Remembers when keys were last used without a write for each call: one a key and minute, many keys at once. What cannot be
 * written waits for the next time; what waits in a process that dies is lost. It is told to nobody: api_key_uses does not
 * belong to what gateways hold in memory.
 */
export function createKeyUses(options: KeyUsesOptions): KeyUses {
  const { write, log, clock, everyMs = 60_000, flushMs = 5_000, maxKeys = 100_000 } = options
  const noted = new BoundedMap<string, number>(maxKeys)
  const waiting = new Map<string, KeyUse>()
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> = Promise.resolve()
  let isStopped = false

  function flushLater(): void {
    if (timer !== undefined || isStopped) return
    timer = setTimeout(() => {
      timer = undefined
      writing = flush()
    }, flushMs)
  }

  async function flush(): Promise<void> {
    // In one order everywhere, so that two gateways never wait for each other's rows.
    const batch = [...waiting.values()].sort((a, b) => (a.keyId < b.keyId ? -1 : 1)).slice(0, maxBatch)
    if (batch.length === 0) return
    try {
      await write(batch)
      for (const use of batch) if (waiting.get(use.keyId) === use) waiting.delete(use.keyId)
    } catch (error) {
      log.warn({ reason: describeError(error), keys: waiting.size }, 'the last uses of keys could not be written')
    }
    if (waiting.size > 0) flushLater()
  }

  return {
    note(keyId, address) {
      const nowMs = clock()
      const lastMs = noted.get(keyId)
      if (lastMs !== undefined && nowMs - lastMs < everyMs) return
      noted.set(keyId, nowMs)
      if (waiting.size >= maxKeys && !waiting.has(keyId)) return
      waiting.set(keyId, { keyId, atMs: nowMs, address })
      flushLater()
    },
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await writing
      await flush()
    },
  }
}

const maxBatch = 1_000

/** Stores uses in api_key_uses; a later use that is there already stays. */
export async function upsertKeyUses(sql: Sql, uses: readonly KeyUse[]): Promise<void> {
  await sql`
    insert into api_key_uses (key_id, used_at, address)
    select * from unnest(${uses.map((use) => use.keyId)}::text[], ${uses.map((use) => new Date(use.atMs))}::timestamptz[],
      ${uses.map((use) => use.address)}::text[])
    on conflict (key_id) do update set used_at = excluded.used_at, address = excluded.address
    where api_key_uses.used_at < excluded.used_at`
}
