import type { Sql, StorageLog } from '../storage/postgres.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { type RelayObserver, startRelay } from './relay.ts'
import { type SinkStatus, selectSinkStatus } from './sink-store.ts'

export interface OutboxOptions {
  readonly sql: Sql
  /** Where domain events go; none: nowhere. */
  readonly sinks: readonly OutboxSink[]
  /** Name of this process, different from those of all others. */
  readonly holder: string
  /** `source` of the events, a URI reference. */
  readonly source: string
  /** An event that fails is attempted for this long. */
  readonly giveUpMs: number
  readonly log: StorageLog
  readonly observer: RelayObserver
}

/** Everything that tells others of changes of the control plane. */
export interface Outbox {
  /** Of the sinks. */
  readonly names: readonly string[]
  /** Says that there may be more to deliver. */
  wake(): void
  /** How far each sink is, and why nothing arrives there at the moment, as far as this process knows. Rejects without Postgres. */
  status(): Promise<readonly SinkState[]>
  /** Lets other processes take over. Never rejects. */
  stop(): Promise<void>
}

export interface SinkState extends SinkStatus {
  /** Undefined while events arrive, or another process delivers. */
  readonly failing: string | undefined
}

/** Begins to deliver to every sink; each has its own pace. */
export function startOutbox(options: OutboxOptions): Outbox {
  const { sql, sinks, ...rest } = options
  const names = sinks.map(({ name }) => name)
  const relays = new Map(sinks.map((sink) => [sink.name, startRelay({ sql, sink, ...rest })]))
  return {
    names,
    wake() {
      for (const relay of relays.values()) relay.wake()
    },
    async status() {
      if (names.length === 0) return []
      const states = await selectSinkStatus(sql, names)
      return states.map((state) => ({ ...state, failing: relays.get(state.name)?.failing() }))
    },
    async stop() {
      await Promise.all([...relays.values()].map((relay) => relay.stop()))
    },
  }
}
