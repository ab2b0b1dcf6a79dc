import { batchOf } from '../metering/event-batch.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { StorageLog } from '../storage/postgres.ts'
import type { RedisClient } from '../storage/redis.ts'
import { decodeEvent } from './event-codec.ts'
import type { UsageBatch, UsageLog } from './limits.ts'
import { Nudge } from './nudge.ts'
import { holdsOf, otherCounters } from './redis-arguments.ts'
import type { RedisKept } from './redis-kept.ts'
import { type RedisKeys, usageGroup } from './redis-keys.ts'
import { asArray, asFacts, command, isReply, type RedisScripts } from './redis-scripts.ts'
import { parseEntry } from './redis-stream.ts'

export interface RedisUsageLogOptions {
  readonly redis: RedisClient
  readonly scripts: RedisScripts
  readonly keys: RedisKeys
  readonly kept: RedisKept
  readonly log: StorageLog
  readonly instanceId: string
  readonly reclaimIdleMs: number
  readonly abandonedTtlMs: number
  /** Told when this process appended to the stream. */
  readonly onAppend?: (() => void) | undefined
}

/** The stream is looked at this often, whoever appended to it; reclaiming goes with it. */
const pollEveryMs = 1_000
const sweepBatch = 100
const maxRounds = 1_000
/** A reader that was silent for a day and holds nothing is forgotten. */
const readerGoneMs = 86_400_000

interface Entry {
  /** In the stream. */
  readonly id: string
  readonly event: UsageEvent
}

/**
 * The usage stream as a log, read as consumer group "ledger". When this process appended, it is read at once, else every
 * second: no blocking read, which would need a connection of its own.
 */
export class RedisUsageLog implements UsageLog {
  /** Runs before each sweep. */
  beforeSweep: () => Promise<void> = async () => undefined
  readonly #options: RedisUsageLogOptions
  readonly #stream: string
  readonly #news = new Nudge()
  #isNudged = false
  #polledAt = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(options: RedisUsageLogOptions) {
    this.#options = options
    this.#stream = options.keys.usage()
  }

  /** Makes the consumer group; forgets readers that are gone. */
  async open(): Promise<void> {
    await this.#createGroup()
    await this.#retire('')
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#news.ring()
    await this.#retire(this.#options.instanceId).catch(() => undefined)
  }

  /** This process appended to the stream. */
  nudge(): void {
    this.#isNudged = true
    this.#news.ring()
    this.#options.onAppend?.()
  }

  async read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageBatch> {
    const deadline = performance.now() + waitMs
    while (!signal.aborted && !this.#closed) {
      const entries = await this.#take(max)
      const now = performance.now()
      if (entries.length > 0 || now >= deadline) return this.#batch(entries)
      if (this.#isNudged) continue
      await this.#news.wait(Math.min(deadline - now, Math.max(1, this.#polledAt + pollEveryMs - now)), signal)
    }
    return this.#batch([])
  }

  async backlog(): Promise<number> {
    const { redis } = this.#options
    try {
      const groups = asArray(await command(() => redis.call('xinfo', 'GROUPS', this.#stream)))
      const facts = groups.map(asFacts).find((entry) => entry.get('name') === usageGroup)
      const lag = facts?.get('lag')
      const pending = Number(facts?.get('pending') ?? 0)
      if (typeof lag === 'number') return pending + lag
      // Before 7.0, or when Redis cannot tell: the length is right or too large by what is acknowledged behind a
      // pending entry.
      return Number(await command(() => redis.call('xlen', this.#stream)))
    } catch (error) {
      if (isReply(error, 'ERR no such key')) return 0
      throw error
    }
  }

  async sweep(): Promise<number> {
    await this.beforeSweep()
    const { keys, scripts } = this.#options
    const args = [keys.reservations(), String(sweepBatch)]
    let total = 0
    for (let round = 0; round < maxRounds; round++) {
      const [seen, ...due] = asArray(await scripts.run('sweep', [keys.leases()], args))
      const abandoning: Promise<boolean>[] = []
      for (let index = 0; index + 2 < due.length; index += 3) {
        const [id = '', plan = '', json = ''] = due.slice(index, index + 3).map(String)
        abandoning.push(this.#abandon(id, plan, json))
      }
      total += (await Promise.all(abandoning)).filter((isRecorded) => isRecorded).length
      if (Number(seen) < sweepBatch) break
    }
    // After the reservations: what a replica spent at last is in one of them.
    await scripts.run('reclaim', [keys.holdings()], [keys.holding(''), ''])
    if (total > 0) this.nudge()
    return total
  }

  /** False when somebody else did, or the call was settled meanwhile. */
  async #abandon(callId: string, plan: string, json: string): Promise<boolean> {
    const { keys, scripts, kept, abandonedTtlMs } = this.#options
    const event = decodeEvent(json)
    const held = holdsOf(plan, keys).map(({ key }) => key)
    const others = event === undefined ? [] : otherCounters(event, held, keys)
    const names = [keys.reservation(callId), keys.leases(), this.#stream, ...others]
    const entry = await scripts.run('abandon', names, [callId, String(abandonedTtlMs)])
    if (entry === null) return false
    if (event !== undefined) kept.append({ entry: String(entry), event, ended: 'a', callId })
    return true
  }

  #batch(entries: readonly Entry[]): UsageBatch {
    const ids = entries.map((entry) => entry.id)
    return { ...batchOf(entries.map((entry) => entry.event)), acknowledge: () => this.#acknowledge(ids) }
  }

  async #take(max: number): Promise<Entry[]> {
    const now = performance.now()
    const isDue = now - this.#polledAt >= pollEveryMs
    if (isDue) {
      this.#polledAt = now
      this.#isNudged = true
      const reclaimed = await this.#withGroup(() => this.#reclaim(max))
      if (reclaimed.length > 0) return reclaimed
    }
    if (!this.#isNudged) return []
    this.#isNudged = false
    try {
      const entries = await this.#withGroup(() => this.#deliver(max))
      if (entries.length >= max) this.#isNudged = true
      return entries
    } catch (error) {
      this.#isNudged = true
      throw error
    }
  }

  async #deliver(count: number): Promise<Entry[]> {
    const { redis, instanceId } = this.#options
    const reply = await command(() =>
      redis.call('xreadgroup', 'GROUP', usageGroup, instanceId, 'COUNT', count, 'STREAMS', this.#stream, '>'),
    )
    const [first] = asArray(reply)
    return this.#parse(asArray(first)[1])
  }

  /** Takes over what a reader held for too long. An empty answer with a cursor means: look further. */
  async #reclaim(count: number): Promise<Entry[]> {
    const { redis, instanceId, reclaimIdleMs } = this.#options
    let cursor = '0-0'
    for (let round = 0; round < maxRounds; round++) {
      const from = cursor
      const reply = asArray(
        await command(() =>
          redis.call('xautoclaim', this.#stream, usageGroup, instanceId, reclaimIdleMs, from, 'COUNT', count),
        ),
      )
      const entries = await this.#parse(reply[1])
      cursor = String(reply[0])
      if (entries.length > 0 || cursor === '0-0') return entries
    }
    return []
  }

  async #parse(reply: unknown): Promise<Entry[]> {
    const entries: Entry[] = []
    for (const item of asArray(reply)) {
      // A trimmed entry that was still pending: servers before 7.0 answer it as nothing.
      if (!Array.isArray(item)) continue
      const { id, json } = parseEntry(item)
      const event = json === undefined ? undefined : decodeEvent(json)
      if (event !== undefined) entries.push({ id, event })
      else await this.#reject(id, json)
    }
    return entries
  }

  /** Sets an entry aside that no reader will ever understand; kept, but out of the way. */
  async #reject(id: string, json: string | undefined): Promise<void> {
    const { redis, keys, log } = this.#options
    log.error({ id }, 'usage log holds an entry that is not a usage event; it is set aside')
    await command(() => redis.call('xadd', keys.rejected(), '*', 'event', String(json)))
    await this.#acknowledge([id])
  }

  async #acknowledge(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    try {
      await this.#options.scripts.run('acknowledge', [this.#stream], [usageGroup, ...ids])
    } catch (error) {
      // Redis lost its data, and with it what was to be forgotten.
      if (!isReply(error, 'NOGROUP')) throw error
    }
  }

  /** Runs a group command; after Redis lost its data, makes the group again and runs it once more. */
  async #withGroup<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run()
    } catch (error) {
      if (!isReply(error, 'NOGROUP')) throw error
      await this.#createGroup()
      return run()
    }
  }

  async #createGroup(): Promise<void> {
    const { redis } = this.#options
    try {
      await command(() => redis.call('xgroup', 'CREATE', this.#stream, usageGroup, '0', 'MKSTREAM'))
    } catch (error) {
      if (!isReply(error, 'BUSYGROUP')) throw error
    }
  }

  async #retire(leaving: string): Promise<void> {
    const { scripts } = this.#options
    await scripts.run('retire', [this.#stream], [usageGroup, leaving, String(readerGoneMs)])
  }
}
