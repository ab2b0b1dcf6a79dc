import { setTimeout as delay } from 'node:timers/promises'
import { TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import { pause } from '../pause.ts'
import { encodeEvent } from './event-codec.ts'
import { periodKeysOf } from './limit-keys.ts'
import { encodePlan } from './redis-arguments.ts'
import type { KeptEvent, RedisKept } from './redis-kept.ts'
import type { RedisKeys } from './redis-keys.ts'
import { asArray, type RedisScripts } from './redis-scripts.ts'
import type { ToldPeriod } from './told-thresholds.ts'

export interface RedisGenerationOptions {
  readonly scripts: RedisScripts
  readonly keys: RedisKeys
  readonly kept: RedisKept
  /** Age at which a generation may be admitted on. */
  readonly graceMs: number
  readonly settledTtlMs: number
  readonly abandonedTtlMs: number
  /** Redis lost data, and this process gave back what it knew. */
  readonly restored: (calls: number, events: number) => void
}

/** Pause between two looks at the generation: a Redis that lost its data is noticed without a call, too. */
const pollEveryMs = 100
/** How long a look says what Redis has: less than `graceMs`, and enough for a look that takes its time. */
const freshMs = 400
/**
 * How much older a generation must be that was begun after Redis was away: longer than the longest pause between two
 * attempts to connect (`storage/redis.ts`), because every process must be back before anything is admitted.
 */
const reconnectMs = 2_500
/** A Redis that is lost again and again within one call. */
const maxTries = 10
/** Scripts on their way at once, and events in one of them, while data is given back. */
const batch = 100

/**
 * A **generation** is one life of Redis's data. Its name is a key; when Redis loses its data (FLUSHALL, a restart or a
 * failover to a server without them), the key is gone, and who looks next makes a new one. Every script that admits or
 * settles compares it in the same step, so nothing is decided on data that were lost in between.
 *
 * A server that was started again, and one that took over, may lack only the last writes. Nothing in its data says so once
 * somebody else has written, so each run of a server begins a generation, whether it lost anything or not: the name holds
 * the run's id. A process looks at it before anything else when Redis was away, and every 100 ms; in the moment before that,
 * after a change of servers that went unnoticed, it may be admitted on data that lack the last writes.
 *
 * A process that meets a new generation first **restores**: it declares its open calls, so that their reservations,
 * leases, claims and holds are there again, appends the events again that the ledger may not have, so that their period
 * counters become unknown and follow the ledger, and says what it told of thresholds. Then it takes the generation for its
 * own and goes on. Nothing is admitted
 * and no counter is read before a generation is `graceMs` old, so that the other processes, who look every 100 ms, have
 * restored too; after an outage of Redis it takes longer, because they must find it again. A settlement does not wait.
 */
export class RedisGeneration {
  readonly #options: RedisGenerationOptions
  readonly #stopping = new AbortController()
  #own = ''
  /** Redis did not answer since it answered last. */
  #wasAway = false
  /** By `performance.now()`. */
  #readyAt = 0
  /** What the last look found, and when it was asked. */
  #seen = { generation: '', askedAt: 0 }
  #renewing: Promise<void> | undefined
  #polling: Promise<void> = Promise.resolve()

  constructor(options: RedisGenerationOptions) {
    this.#options = options
  }

  /** Takes the generation for its own, waits until it may be admitted on, and looks at it from then on. */
  async open(): Promise<void> {
    const { generation, ageMs } = await this.#look()
    this.#adopt(generation, ageMs)
    await this.#ready()
    this.#polling = this.#poll()
  }

  async close(): Promise<void> {
    this.#stopping.abort()
    await this.#polling
  }

  /**
   * The generation, when it may be admitted on without asking Redis: nobody admits on another one, because none can be
   * `graceMs` old that this process did not see a moment ago.
   */
  get current(): string | undefined {
    const now = performance.now()
    const isReady = !this.#wasAway && this.#renewing === undefined && now >= this.#readyAt
    const isFresh = this.#seen.generation === this.#own && now < this.#seen.askedAt + freshMs
    return isReady && isFresh ? this.#own : undefined
  }

  /** Resolves when the generation may be admitted on. */
  async #ready(): Promise<void> {
    for (;;) {
      await this.#renewing
      const ms = Math.ceil(this.#readyAt - performance.now())
      if (ms <= 0) return
      await delay(ms)
    }
  }

  /**
   * Runs a script that begins by comparing the generation, with this process's own; when Redis has another one, restores
   * and runs it again. With `isPatient` it waits until the generation may be admitted on.
   */
  async run(isPatient: boolean, script: (generation: string) => Promise<unknown>): Promise<readonly unknown[]> {
    for (let tries = 0; tries < maxTries; tries++) {
      if (this.#wasAway) await this.#renew()
      await (isPatient ? this.#ready() : this.#renewing)
      const own = this.#own
      const reply = asArray(await script(own))
      if (String(reply[0]) !== 'generation') return reply
      if (own === this.#own) await this.#renew()
    }
    throw new TollgateError('LIMITS_UNAVAILABLE', 'limits lose their data again and again')
  }

  #renew(): Promise<void> {
    this.#renewing ??= this.#restore().finally(() => {
      this.#renewing = undefined
    })
    return this.#renewing
  }

  async #restore(): Promise<void> {
    const { kept } = this.#options
    for (let tries = 0; tries < maxTries; tries++) {
      const { generation, ageMs } = await this.#look()
      if (generation === this.#own) return
      const seenAt = performance.now()
      // Answers that came before this one are taken note of first: admissions and settlements of the old generation.
      await new Promise((done) => setImmediate(done))
      const [calls, events] = [kept.open(), kept.events()]
      const isDone =
        (await this.#declare(generation, calls)) &&
        (await this.#append(generation, events)) &&
        (await this.#remind(generation, kept.told.all()))
      if (!isDone) continue
      kept.renewed()
      this.#adopt(generation, ageMs, seenAt)
      this.#options.restored(calls.length, events.length)
      return
    }
    throw new TollgateError('LIMITS_UNAVAILABLE', 'limits lose their data again and again')
  }

  /** False when Redis is another one again. */
  async #declare(generation: string, calls: ReturnType<RedisKept['open']>): Promise<boolean> {
    const { scripts, keys } = this.#options
    for (let from = 0; from < calls.length; from += batch) {
      const replies = await Promise.all(
        calls.slice(from, from + batch).map(({ admission: { id, costs, ifAbandoned, claim }, leaseMs }) => {
          const names = [keys.generation(), keys.reservation(id), keys.leases()]
          if (claim !== undefined) names.push(keys.claim(claim.key))
          const facts = [id, String(leaseMs), encodePlan(costs, keys), encodeEvent(ifAbandoned)]
          return scripts.run('declare', names, [generation, ...facts, claim?.fingerprint ?? ''])
        }),
      )
      if (replies.some((reply) => asArray(reply)[0] === 'generation')) return false
    }
    return true
  }

  async #append(generation: string, events: readonly KeptEvent[]): Promise<boolean> {
    const { scripts, keys, kept, settledTtlMs, abandonedTtlMs } = this.#options
    for (let from = 0; from < events.length; from += batch) {
      const part = events.slice(from, from + batch)
      const counters = new Set(part.flatMap(({ event }) => periodKeysOf(event)))
      const names = [keys.generation(), keys.leases(), keys.usage()]
      for (const counter of counters) names.push(keys.limit(counter))
      const entries = part.flatMap(({ ended, callId, event, entry }) => [ended, callId, encodeEvent(event), entry])
      const head = [generation, keys.reservations(), String(settledTtlMs), String(abandonedTtlMs)]
      const [outcome, ...ids] = asArray(await scripts.run('correct', names, [...head, ...entries]))
      if (outcome === 'generation') return false
      part.forEach((event, index) => {
        kept.moved(event, String(ids[index]))
      })
    }
    return true
  }

  async #remind(generation: string, told: readonly ToldPeriod[]): Promise<boolean> {
    const { scripts, keys } = this.#options
    for (let from = 0; from < told.length; from += batch) {
      const part = told.slice(from, from + batch)
      const names = [keys.generation(), ...part.map(({ key }) => keys.limit(key))]
      const facts = part.flatMap(({ endsAtMs, told80, told100 }) => [endsAtMs, told80, told100].map(String))
      const [outcome] = asArray(await scripts.run('remind', names, [generation, ...facts]))
      if (outcome === 'generation') return false
    }
    return true
  }

  #adopt(generation: string, ageMs: number, seenAt = performance.now()): void {
    this.#own = generation
    this.#readyAt = seenAt + this.#options.graceMs - ageMs
  }

  async #look(): Promise<{ generation: string; ageMs: number; oldest: string; newest: string }> {
    const { scripts, keys, kept } = this.#options
    const args = [newId(), this.#own, kept.newest, String(this.#wasAway ? reconnectMs : 0)]
    const askedAt = performance.now()
    try {
      const reply = asArray(await scripts.run('generation', [keys.generation(), keys.usage()], args))
      const [generation = '', age = '', oldest = '', newest = ''] = reply.map(String)
      this.#wasAway = false
      this.#seen = { generation, askedAt }
      return { generation, ageMs: Number(age), oldest, newest }
    } catch (error) {
      this.#wasAway = true
      throw error
    }
  }

  async #poll(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      await pause(pollEveryMs, signal, { ref: false })
      if (!signal.aborted) await this.#pollOnce().catch(() => undefined)
    }
  }

  async #pollOnce(): Promise<void> {
    const own = this.#own
    const { generation, oldest, newest } = await this.#look()
    if (own !== this.#own || this.#renewing !== undefined) return
    if (generation === own) this.#options.kept.forget(oldest, newest)
    else await this.#renew()
  }
}
