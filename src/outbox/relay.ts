/**
 * The **relay** of a sink delivers the changes of the control plane to it, as domain events.
 *
 * - One process at a time is its **holder**, for as long as it renews its lease; another one takes over when it does not.
 * - The sink's **position** moves over the changes in their order. What was not delivered is noted in the transaction that
 *   moves the position past it, and **waits**: for its next attempt, with pauses that grow, or behind an earlier change of the
 *   same resource. So one resource holds up no other, and its changes arrive in order.
 * - A change that is refused for good, or was attempted for too long, becomes a **dead letter**, and the later ones of its
 *   resource go on.
 * - When attempt after attempt fails, the sink counts as **away**: then one event at a time is tried, with pauses that grow,
 *   until one arrives. Everything else stays where it is, and comes in order afterwards.
 *
 * A process that dies between a delivery and its note delivers again: at least once, and the first deliveries of a resource
 * in order, because whoever repeats begins where the note is.
 */
import type { LoggedChange } from '../control/change-log.ts'
import { pause } from '../pause.ts'
import { describeError, type Sql, type StorageLog } from '../storage/postgres.ts'
import { within } from '../within.ts'
import {
  advanceSink,
  type Claim,
  claimSink,
  deleteDelivered,
  hasten,
  insertHeldBack,
  noteFailure,
  type Outgoing,
  releaseSink,
  selectDue,
  selectFresh,
  untilDue,
} from './delivery-store.ts'
import { toDomainEvent } from './domain-event.ts'
import type { Delivery, DeliveryFailure, OutboxSink } from './outbox-sink.ts'

export interface RelayOptions {
  readonly sql: Sql
  readonly sink: OutboxSink
  /** Name of this process, different from those of all others. */
  readonly holder: string
  /** `source` of the events, a URI reference. */
  readonly source: string
  readonly log: StorageLog
  readonly observer: RelayObserver
  /** An event that fails is attempted for this long. */
  readonly giveUpMs: number
  /** Events that are delivered together; default 100. */
  readonly batchMax?: number
  /** Longest pause without anything to do; default 1 000. */
  readonly pollMs?: number
  /** How long others wait for a process that died; default 10 000. */
  readonly leaseMs?: number
  /** First and longest pause between two attempts at one event; defaults 1 000 and 60 000. */
  readonly retryMinMs?: number
  readonly retryMaxMs?: number
  /** Longest pause while the sink is away; default 30 000. */
  readonly awayMaxMs?: number
  /** Longest that `stop` waits; default 3 000. */
  readonly stopTimeoutMs?: number
  /** 0 to 1; default Math.random. */
  readonly random?: () => number
}

/** Told once of each; must not throw. */
export interface RelayObserver {
  delivered(sink: string, events: number): void
  failed(sink: string): void
  died(sink: string): void
}

export interface Relay {
  /** Says that there may be more to deliver. */
  wake(): void
  /** Why nothing arrives at the moment; undefined while events arrive, or another process delivers. */
  failing(): string | undefined
  /** Ends what is under way, and lets another process take over. Never rejects. */
  stop(): Promise<void>
}

/** Failures in a row, of any resources, after which the sink counts as away. */
const awayAfter = 5

export function startRelay(options: RelayOptions): Relay {
  const { sql, sink, log, observer, source, giveUpMs, random = Math.random } = options
  const { batchMax = 100, pollMs = 1_000, leaseMs = 10_000, stopTimeoutMs = 3_000 } = options
  const claim: Claim = { sink: sink.name, holder: options.holder, leaseMs, beginsAt: sink.beginsAt ?? 'next' }
  const stopping = new AbortController()
  let wakeUp = (): void => {}
  /** In a row. */
  let failures = 0
  let failing: string | undefined
  let probes = 0
  let isStorageAway = false

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      let pauseMs = pollMs
      try {
        pauseMs = await round()
        isStorageAway = false
      } catch (error) {
        if (!isStorageAway)
          log.warn({ sink: sink.name, reason: describeError(error) }, 'events cannot be read or noted')
        isStorageAway = true
      }
      if (pauseMs > 0) await pauseOrWake(pauseMs)
    }
    // Where that fails, the lease runs out by itself.
    await within(stopTimeoutMs, releaseSink(sql, claim)).catch(() => {})
  }

  /** Delivers once; returns the pause before the next time. */
  async function round(): Promise<number> {
    const position = await claimSink(sql, claim)
    if (position === undefined) {
      failing = undefined
      return pollMs
    }
    const isAway = failures >= awayAfter
    const { due, fresh } = await choose(position, isAway)
    const attempted = [...due, ...fresh.flatMap(({ change, isBlocked }) => (isBlocked ? [] : [change]))]
    if (due.length + fresh.length === 0) return await untilDue(sql, sink.name, pollMs)
    const deliveries = await attempt(attempted)
    note(deliveries ?? [], isAway)
    if (deliveries !== undefined) {
      await commit(
        position,
        { due, fresh, deliveries: new Map(attempted.map((c, i) => [c.position, deliveries[i]])) },
        isAway,
      )
    }
    return failures >= awayAfter ? awayPauseMs(deliveries ?? []) : 0
  }

  async function choose(position: number, isAway: boolean): Promise<{ due: LoggedChange[]; fresh: Outgoing[] }> {
    const limit = isAway ? 1 : batchMax
    const due = await selectDue(sql, sink.name, limit)
    const fresh = await selectFresh(sql, sink.name, position, limit)
    if (!isAway || due.length === 0 || fresh.length === 0) return { due, fresh }
    // One that never arrives must not keep others from showing that the sink is there.
    probes += 1
    return probes % 2 === 0 ? { due, fresh: [] } : { due: [], fresh }
  }

  /** Undefined when nobody knows what arrived. */
  async function attempt(changes: readonly LoggedChange[]): Promise<readonly Delivery[] | undefined> {
    if (changes.length === 0) return []
    const lost = new AbortController()
    const renewal = setInterval(() => {
      claimSink(sql, claim).then(
        (held) => held === undefined && lost.abort(new Error('another process delivers')),
        // The lease outlasts a failure or two; while Postgres is away, the next note fails as well, and that is told.
        () => {},
      )
    }, leaseMs / 3)
    try {
      const events = changes.map((change) => toDomainEvent(change, source))
      return await sink.deliver(events, AbortSignal.any([stopping.signal, lost.signal]))
    } catch (error) {
      if (stopping.signal.aborted || lost.signal.aborted) return undefined
      const reason = describeError(error)
      if (changes.length === 1) return [{ reason, isFinal: false, retryAfterMs: undefined }]
      fail(reason)
      failures = Math.max(failures, awayAfter)
      return undefined
    } finally {
      clearInterval(renewal)
    }
  }

  /** Counts what came of the attempts. */
  function note(deliveries: readonly Delivery[], wasAway: boolean): void {
    const delivered = deliveries.filter((delivery) => delivery === 'delivered').length
    for (const delivery of deliveries) if (isFailure(delivery)) fail(delivery.reason)
    if (delivered === 0) return
    observer.delivered(sink.name, delivered)
    failures = 0
    failing = undefined
    if (wasAway) log.info({ sink: sink.name }, 'events arrive again')
  }

  function fail(reason: string): void {
    observer.failed(sink.name)
    failures += 1
    if (failures === awayAfter) log.warn({ sink: sink.name, reason }, 'events do not arrive and wait')
    failing = reason
  }

  async function commit(position: number, made: Attempts, wasAway: boolean): Promise<void> {
    const { due, fresh, deliveries } = made
    await sql.begin(async (tx) => {
      const last = fresh.at(-1)?.change.position ?? position
      // Another process delivers now, or a replay began: what was done here is done again.
      if (!(await advanceSink(tx, claim, position, last))) return
      const arrived = due.filter((change) => deliveries.get(change.position) === 'delivered')
      if (arrived.length > 0)
        await deleteDelivered(
          tx,
          sink.name,
          arrived.map((change) => change.position),
        )
      for (const change of [...due, ...fresh.map((one) => one.change)]) {
        const delivery = deliveries.get(change.position) ?? 'held_back'
        if (delivery === 'held_back') await insertHeldBack(tx, sink.name, change)
        else if (isFailure(delivery)) await noteFailed(change, delivery)
      }
      if (wasAway && failures === 0) await hasten(tx, sink.name)

      async function noteFailed(change: LoggedChange, failure: DeliveryFailure): Promise<void> {
        const isDead = await noteFailure(tx, { sink: sink.name, change, failure, pauseMs: retryPauseMs, giveUpMs })
        if (!isDead) return
        observer.died(sink.name)
        const { position: at, id, type, resourceId } = change
        log.error(
          { sink: sink.name, position: at, id, type, resourceId, reason: failure.reason },
          'an event is a dead letter',
        )
      }
    })
  }

  /** Full jitter: many events that failed together do not come together again. */
  function retryPauseMs(attempts: number): number {
    const { retryMinMs = 1_000, retryMaxMs = 60_000 } = options
    return Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(attempts, 20)) * random()
  }

  function awayPauseMs(deliveries: readonly Delivery[]): number {
    const { retryMinMs = 1_000, awayMaxMs = 30_000 } = options
    const asked = deliveries.map((delivery) => (isFailure(delivery) ? (delivery.retryAfterMs ?? 0) : 0))
    const pauseMs = Math.min(awayMaxMs, retryMinMs * 2 ** Math.min(failures - awayAfter, 20)) * random()
    return Math.min(Math.max(pauseMs, 10, ...asked), longestAskedMs)
  }

  /** Waits, or until somebody says that there is more; but a sink that is away is left in peace. */
  async function pauseOrWake(ms: number): Promise<void> {
    const woken = Promise.withResolvers<void>()
    if (failures < awayAfter) wakeUp = woken.resolve
    const ended = new AbortController()
    const signal = AbortSignal.any([stopping.signal, ended.signal])
    await Promise.race([woken.promise, pause(ms, signal, { ref: false })])
    ended.abort()
    wakeUp = () => {}
  }

  const running = run()
  return {
    wake: () => wakeUp(),
    failing: () => (failures >= awayAfter ? failing : undefined),
    async stop() {
      stopping.abort(new Error('the process leaves'))
      await within(2 * stopTimeoutMs, running).catch((error: unknown) => {
        log.warn({ sink: sink.name, reason: describeError(error) }, 'stopped before the events were noted')
      })
      await sink.close()
    },
  }
}

/** No sink may ask for a longer pause. */
const longestAskedMs = 900_000

interface Attempts {
  readonly due: readonly LoggedChange[]
  readonly fresh: readonly Outgoing[]
  /** By position. */
  readonly deliveries: ReadonlyMap<number, Delivery | undefined>
}

function isFailure(delivery: Delivery): delivery is DeliveryFailure {
  return typeof delivery === 'object'
}
