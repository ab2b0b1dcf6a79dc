import { TollgateError } from '../errors.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { RedisClient } from '../storage/redis.ts'
import { within } from '../within.ts'
import { decodeEvent } from './event-codec.ts'
import { unitsOf } from './limit-keys.ts'
import type { Limit, PeriodLimit, PeriodSeed } from './limits.ts'
import type { KnownSeed } from './redis-arguments.ts'
import type { RedisGeneration } from './redis-generation.ts'
import { readStream } from './redis-stream.ts'
import { askSeed } from './seeds.ts'

export interface RedisSeedsOptions {
  readonly redis: RedisClient
  /** Key of the usage stream. */
  readonly stream: string
  readonly generation: RedisGeneration
  readonly seed: PeriodSeed
}

/** How long an admission waits for periods to become known, and how often it tries. */
const maxMs = 3_000
const maxTries = 100

/**
 * What was used in a period that Redis does not know: the usage stream is read, then the ledger is asked for its sum and
 * for those of the events read that it lacks. That is exact, and stays exact until a script installs it:
 *
 * - The ledger is asked after the stream was read. An event that the reading did not find was either trimmed, and then
 *   the ledger had it before (`acknowledge.lua` is run for nothing else), or appended later.
 * - Whoever appends an event to a period that is unknown moves its version in the same step: a settlement, a sweep and a
 *   correction do. A seed is installed only at the version that it was asked at, so no event came meanwhile; and a
 *   reading is used only for versions that were seen before it began.
 * - An event that stands in the stream twice, as after a restoration, counts once, by its id.
 *
 * A period that does not exist begins to when it is first asked for; without a key there is no version to move, and
 * nobody who asks. A seed belongs to a generation, too (`redis-generation.ts`).
 *
 * All who ask at the same time share one reading, and all who ask for the same thing one question.
 */
export class RedisSeeds {
  readonly #options: RedisSeedsOptions
  readonly #asked = new Map<string, Promise<number>>()
  #reading: Promise<Waiting> | undefined
  #next: Promise<Waiting> | undefined

  constructor(options: RedisSeedsOptions) {
    this.#options = options
  }

  /**
   * Runs a script in the current generation; when that does not know a period of the limits, it is run again with what was
   * used. Throws LIMITS_UNAVAILABLE when Redis or the ledger does not answer in time.
   */
  async known(
    limits: readonly Limit[],
    run: (generation: string, seeds: ReadonlyMap<number, KnownSeed>) => Promise<unknown>,
  ): Promise<readonly unknown[]> {
    const until = performance.now() + maxMs
    let asked = ''
    let seeds: ReadonlyMap<number, KnownSeed> = new Map()
    for (let tries = 0; tries < maxTries; tries++) {
      const reply = await this.#options.generation.run(true, (generation) => {
        // What was asked in another generation says nothing of this one.
        if (generation !== asked) seeds = new Map()
        asked = generation
        return run(generation, seeds)
      })
      if (String(reply[0]) !== 'unseeded') return reply
      const left = until - performance.now()
      if (left <= 0) break
      seeds = await this.#askAll(limits, reply.slice(1).map(String), asked, left)
    }
    throw unknownYet()
  }

  /** Seeds by the index of their limits, of pairs of index and version. */
  async #askAll(
    limits: readonly Limit[],
    unknown: readonly string[],
    generation: string,
    ms: number,
  ): Promise<Map<number, KnownSeed>> {
    const seeds = new Map<number, KnownSeed>()
    const asking: Promise<void>[] = []
    for (let at = 0; at + 1 < unknown.length; at += 2) {
      const [index, version = ''] = [Number(unknown[at]), unknown[at + 1]]
      const limit = limits[index]
      if (limit?.kind !== 'period') continue
      const answer = this.#askOnce(limit, version, generation, ms)
      asking.push(answer.then((used) => void seeds.set(index, { used, version })))
    }
    await Promise.all(asking)
    return seeds
  }

  /** Units used, as of a version of the counter that was seen before this is called. */
  #askOnce(limit: PeriodLimit, version: string, generation: string, ms: number): Promise<number> {
    const question = `${generation} ${version} ${limit.key}`
    let answer = this.#asked.get(question)
    if (answer === undefined) {
      answer = this.#ask(limit).finally(() => this.#asked.delete(question))
      this.#asked.set(question, answer)
    }
    return within(ms, answer, unknownYet)
  }

  async #ask(limit: PeriodLimit): Promise<number> {
    const waiting = await this.#waiting()
    return askSeed(this.#options.seed, limit, waiting.of(limit))
  }

  /** A reading that has not begun yet. */
  #waiting(): Promise<Waiting> {
    this.#next ??= this.#readNext(this.#reading)
    return this.#next
  }

  async #readNext(before: Promise<Waiting> | undefined): Promise<Waiting> {
    await before?.catch(() => undefined)
    // From here on, whoever asks gets a later one.
    this.#reading = this.#next
    this.#next = undefined
    try {
      const waiting = new Waiting()
      for await (const { json } of readStream(this.#options.redis, this.#options.stream)) {
        const event = json === undefined ? undefined : decodeEvent(json)
        if (event !== undefined) waiting.add(event)
      }
      return waiting
    } finally {
      this.#reading = undefined
    }
  }
}

/** When nobody can say in time what was used. */
function unknownYet(): TollgateError {
  return new TollgateError('LIMITS_UNAVAILABLE', 'usage of the current period is not known yet')
}

/** The events of one reading, by whose they are: a thousand limits that ask must not go through all of them each. */
class Waiting {
  readonly #bySubject = new Map<string, Map<string, UsageEvent>>()

  add(event: UsageEvent): void {
    for (const subject of [event.organizationId, event.consumerId, event.keyId, event.serviceId]) {
      const events = this.#bySubject.get(subject) ?? new Map<string, UsageEvent>()
      events.set(event.id, event)
      this.#bySubject.set(subject, events)
    }
  }

  /** Those that the limit counts. */
  of(limit: PeriodLimit): UsageEvent[] {
    const events = this.#bySubject.get(limit.scope.id)?.values() ?? []
    return [...events].filter((event) => unitsOf(limit, event) !== undefined)
  }
}
