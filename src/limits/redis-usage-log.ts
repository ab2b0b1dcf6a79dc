import type { Logger } from 'pino'
import type { RedisClient } from '../storage/redis.ts'
import { decodeEvent } from './event-codec.ts'
import type { UsageLog, UsageLogEntry } from './limits.ts'
import { Nudge } from './nudge.ts'
import { allShards, type RedisKeys, usageGroup } from './redis-keys.ts'
import { asArray, asFacts, command, isReply, type RedisScripts } from './redis-scripts.ts'

export interface RedisUsageLogOptions {
  readonly redis: RedisClient
  readonly scripts: RedisScripts
  readonly keys: RedisKeys
  readonly log: Logger
  readonly instanceId: string
  readonly reclaimIdleMs: number
  readonly abandonedTtlMs: number
}

/** All shards are looked at this often, whoever settled there; reclaiming goes with it. */
const pollEveryMs = 1_000
const sweepBatch = 200
const maxRounds = 1_000
/** A reader that was silent for a day and holds nothing is forgotten. */
const readerGoneMs = 86_400_000

/**
 * The usage streams of all shards as one log, read as consumer group "ledger". Shards where this process settled are
 * read at once, all of them every second: no blocking reads, which would need a connection for each slot.
 */
export class RedisUsageLog implements UsageLog {
  /** Runs before each sweep. */
  beforeSweep: () => Promise<void> = async () => undefined
  readonly #options: RedisUsageLogOptions
  readonly #nudged = new Set<number>()
  readonly #news = new Nudge()
  #polledAt = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(options: RedisUsageLogOptions) {
    this.#options = options
  }

  /** Makes the consumer groups; forgets readers that are gone. */
  async open(): Promise<void> {
    await Promise.all(allShards.map((shard) => this.#createGroup(shard)))
    await this.#retire('')
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#news.ring()
    await this.#retire(this.#options.instanceId).catch(() => undefined)
  }

  /** This process appended to a shard. */
  nudge(shard: number): void {
    this.#nudged.add(shard)
    this.#news.ring()
  }

  async read(max: number, waitMs: number, signal: AbortSignal): Promise<UsageLogEntry[]> {
    const deadline = performance.now() + waitMs
    while (!signal.aborted && !this.#closed) {
      const entries = await this.#take(max)
      const now = performance.now()
      if (entries.length > 0 || now >= deadline) return entries
      if (this.#nudged.size > 0) continue
      await this.#news.wait(Math.min(deadline - now, Math.max(1, this.#polledAt + pollEveryMs - now)), signal)
    }
    return []
  }

  async acknowledge(entries: readonly UsageLogEntry[]): Promise<void> {
    const byShard = new Map<number, string[]>()
    for (const { position } of entries) {
      const slash = position.indexOf('/')
      const shard = Number(position.slice(0, slash))
      byShard.set(shard, [...(byShard.get(shard) ?? []), position.slice(slash + 1)])
    }
    await Promise.all([...byShard].map(([shard, ids]) => this.#acknowledge(shard, ids)))
  }

  async backlog(): Promise<number> {
    const counts = await Promise.all(allShards.map((shard) => this.#backlog(shard)))
    return counts.reduce((sum, count) => sum + count, 0)
  }

  async sweep(): Promise<number> {
    await this.beforeSweep()
    const counts = await Promise.all(allShards.map((shard) => this.#sweep(shard)))
    return counts.reduce((sum, count) => sum + count, 0)
  }

  async #take(max: number): Promise<UsageLogEntry[]> {
    const now = performance.now()
    const due = now - this.#polledAt >= pollEveryMs
    if (due) {
      this.#polledAt = now
      for (const shard of allShards) this.#nudged.add(shard)
      const reclaimed = await this.#each(allShards, max, (shard, count) => this.#reclaim(shard, count))
      if (reclaimed.length > 0) return reclaimed
    }
    const turn = [...this.#nudged].slice(0, max)
    for (const shard of turn) this.#nudged.delete(shard)
    return this.#each(turn, max, async (shard, count) => {
      const entries = await this.#deliver(shard, count)
      if (entries.length >= count) this.#nudged.add(shard)
      return entries
    })
  }

  /**
   * Asks shards side by side, each for its share of `max`. What some delivered is returned even when others failed,
   * because it is held for this reader now.
   */
  async #each(
    turn: readonly number[],
    max: number,
    ask: (shard: number, count: number) => Promise<UsageLogEntry[]>,
  ): Promise<UsageLogEntry[]> {
    const some = turn.slice(0, max)
    const count = Math.max(1, Math.floor(max / Math.max(1, some.length)))
    const answers = await Promise.allSettled(some.map((shard) => ask(shard, count)))
    const entries = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
    answers.forEach((answer, index) => {
      const shard = some[index]
      if (answer.status === 'rejected' && shard !== undefined) this.#nudged.add(shard)
    })
    const failure = answers.find((answer) => answer.status === 'rejected')
    if (entries.length === 0 && failure?.status === 'rejected') throw failure.reason
    return entries
  }

  #deliver(shard: number, count: number): Promise<UsageLogEntry[]> {
    return this.#withGroup(shard, async () => {
      const stream = this.#options.keys.usage(shard)
      const { redis, instanceId } = this.#options
      const reply = await command(() =>
        redis.call('xreadgroup', 'GROUP', usageGroup, instanceId, 'COUNT', count, 'STREAMS', stream, '>'),
      )
      const [first] = asArray(reply)
      return this.#parse(shard, asArray(first)[1])
    })
  }

  /** Takes over what a reader held for too long. An empty answer with a cursor means: look further. */
  #reclaim(shard: number, count: number): Promise<UsageLogEntry[]> {
    return this.#withGroup(shard, async () => {
      const { redis, instanceId, reclaimIdleMs, keys } = this.#options
      let cursor = '0-0'
      for (let round = 0; round < maxRounds; round++) {
        const from = cursor
        const reply = asArray(
          await command(() =>
            redis.call('xautoclaim', keys.usage(shard), usageGroup, instanceId, reclaimIdleMs, from, 'COUNT', count),
          ),
        )
        const entries = await this.#parse(shard, reply[1])
        cursor = String(reply[0])
        if (entries.length > 0 || cursor === '0-0') return entries
      }
      return []
    })
  }

  async #parse(shard: number, reply: unknown): Promise<UsageLogEntry[]> {
    const entries: UsageLogEntry[] = []
    for (const item of asArray(reply)) {
      const [id, fields] = asArray(item)
      if (typeof id !== 'string') continue
      const json = asFacts(fields).get('event')
      const event = typeof json === 'string' ? decodeEvent(json) : undefined
      if (event !== undefined) entries.push({ position: `${shard}/${id}`, event })
      else await this.#reject(shard, id, json)
    }
    return entries
  }

  /** Sets an entry aside that no reader will ever understand; kept, but out of the way. */
  async #reject(shard: number, id: string, json: unknown): Promise<void> {
    const { redis, keys, log } = this.#options
    log.error({ shard, id }, 'usage log holds an entry that is not a usage event; it is set aside')
    await command(() => redis.call('xadd', keys.rejected(shard), '*', 'event', String(json)))
    await this.#acknowledge(shard, [id])
  }

  async #acknowledge(shard: number, ids: readonly string[]): Promise<void> {
    try {
      await this.#options.scripts.run('acknowledge', [this.#options.keys.usage(shard)], [usageGroup, ...ids])
    } catch (error) {
      // Redis lost its data, and with it what was to be forgotten.
      if (!isReply(error, 'NOGROUP')) throw error
    }
  }

  async #backlog(shard: number): Promise<number> {
    const { redis, keys } = this.#options
    const stream = keys.usage(shard)
    try {
      const groups = asArray(await command(() => redis.call('xinfo', 'GROUPS', stream)))
      const facts = groups.map(asFacts).find((entry) => entry.get('name') === usageGroup)
      const lag = facts?.get('lag')
      const pending = Number(facts?.get('pending') ?? 0)
      if (typeof lag === 'number') return pending + lag
      // Before 7.0, or when Redis cannot tell: the length is right or too large by what is acknowledged behind a
      // pending entry.
      return Number(await command(() => redis.call('xlen', stream)))
    } catch (error) {
      if (isReply(error, 'ERR no such key')) return 0
      throw error
    }
  }

  async #sweep(shard: number): Promise<number> {
    const { keys, scripts, abandonedTtlMs } = this.#options
    const args = [keys.reservations(shard), String(sweepBatch), String(abandonedTtlMs)]
    let total = 0
    for (let round = 0; round < maxRounds; round++) {
      const [seen, recorded] = asArray(await scripts.run('sweep', [keys.leases(shard), keys.usage(shard)], args))
      total += Number(recorded)
      if (Number(seen) < sweepBatch) break
    }
    if (total > 0) this.nudge(shard)
    return total
  }

  /** Runs a group command; after Redis lost its data, makes the group again and runs it once more. */
  async #withGroup<T>(shard: number, run: () => Promise<T>): Promise<T> {
    try {
      return await run()
    } catch (error) {
      if (!isReply(error, 'NOGROUP')) throw error
      await this.#createGroup(shard)
      return run()
    }
  }

  async #createGroup(shard: number): Promise<void> {
    const { redis, keys } = this.#options
    try {
      await command(() => redis.call('xgroup', 'CREATE', keys.usage(shard), usageGroup, '0', 'MKSTREAM'))
    } catch (error) {
      if (!isReply(error, 'BUSYGROUP')) throw error
    }
  }

  async #retire(leaving: string): Promise<void> {
    const { scripts, keys } = this.#options
    const args = [usageGroup, leaving, String(readerGoneMs)]
    await Promise.all(allShards.map((shard) => scripts.run('retire', [keys.usage(shard)], args)))
  }
}
