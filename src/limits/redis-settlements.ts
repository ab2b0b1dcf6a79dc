import type { Logger } from 'pino'
import { TollgateError } from '../errors.ts'
import { correctionIds, correctionOf } from '../metering/correction.ts'
import { noTokens, type UsageEvent } from '../metering/usage-event.ts'
import { CounterNames } from './counter-names.ts'
import { decodeEvent, encodeEvent } from './event-codec.ts'
import { GroupCommit } from './group-commit.ts'
import { periodKeysOf } from './limit-keys.ts'
import { type Admission, nothingCrossed, type Settled, type Settlement } from './limits.ts'
import { settleAll } from './redis-batches.ts'
import type { RedisGeneration } from './redis-generation.ts'
import type { RedisKept } from './redis-kept.ts'
import type { RedisKeys } from './redis-keys.ts'
import { type RedisScripts, type ScriptArgument, traced } from './redis-scripts.ts'
import type { RedisSlices } from './redis-slices.ts'

export interface RedisSettlementsOptions {
  readonly log: Logger
  readonly keys: RedisKeys
  readonly scripts: RedisScripts
  readonly kept: RedisKept
  readonly generation: RedisGeneration
  readonly slices: RedisSlices
  readonly settledTtlMs: number
  readonly answerTtlMs: number
  /** Told when events were appended to the usage log. */
  readonly appended: () => void
}

/** Admissions with an unknown outcome that wait for their release; beyond it they are left to their lease. */
const maxUnreleased = 10_000
/** A reservation that changes its state again and again while it is settled. */
const maxTries = 5

/** How reservations end: settled with a usage event, once, or released as if the call had never been. */
export class RedisSettlements {
  readonly #options: RedisSettlementsOptions
  readonly #batches: GroupCommit
  readonly #counterNames: CounterNames
  readonly #unreleased = new Map<string, Admission>()

  constructor(options: RedisSettlementsOptions) {
    this.#options = options
    this.#batches = new GroupCommit((batch) => settleAll(options, batch))
    this.#counterNames = new CounterNames(options.keys)
  }

  async settle(settlement: Settlement): Promise<Settled> {
    const { admission, event } = settlement
    const { id, costs } = admission
    const { kept, slices } = this.#options
    await slices.heard(id)
    for (let tries = 0; tries < maxTries; tries++) {
      const [outcome, detail] = await this.#settleOpen(settlement, event)
      const [entry = '', ...told] = String(detail).split(' ')
      // Again, and this process thought it open: the answer of its settlement was lost, and is this one.
      const wasLost = outcome === 'again' && kept.closed(id) && entry !== ''
      if (outcome === 'settled' || wasLost) {
        this.#ended(id, [event], [entry])
        const crossed = readCrossed(costs, told)
        kept.told.tell(crossed)
        return { crossed }
      }
      if (outcome === 'again') return nothingCrossed
      const events = outcome === 'late' ? correctedBy(decodeKnown(detail), event) : [event]
      if (await this.#settleLate(settlement, outcome === 'late' ? 'a' : '', events)) return nothingCrossed
    }
    throw new TollgateError('LIMITS_UNAVAILABLE', 'the reservation changes while it is settled')
  }

  /** Gives back in the background what an admission of unknown outcome took, if it took anything. */
  release(admission: Admission): void {
    if (this.#unreleased.size < maxUnreleased) this.#unreleased.set(admission.id, admission)
    void this.#releaseOne(admission).catch(() => undefined)
  }

  async #releaseOne(admission: Admission): Promise<void> {
    const settlement = { admission, actual: admission.costs.map(() => 0), event: admission.ifAbandoned }
    const [outcome, detail] = await this.#settleOpen(settlement)
    if (outcome === 'late') {
      const abandoned = decodeKnown(detail)
      const nothing: UsageEvent = { ...abandoned, tokens: noTokens, costNanos: 0, errorReason: 'LIMITS_UNAVAILABLE' }
      await this.#settleLate(settlement, 'a', correctedBy(abandoned, nothing))
    }
    this.#unreleased.delete(admission.id)
  }

  /** Tries again where a release failed. */
  async releaseAll(): Promise<void> {
    await this.#options.slices.tidy().catch(() => undefined)
    if (this.#unreleased.size === 0) return
    await Promise.allSettled([...this.#unreleased.values()].map((admission) => this.#releaseOne(admission)))
    if (this.#unreleased.size > 0)
      this.#options.log.warn({ count: this.#unreleased.size }, 'admissions of unknown outcome')
  }

  /** Settles an open reservation; without an event it is released. */
  #settleOpen({ admission, actual, answer }: Settlement, event?: UsageEvent): Promise<readonly unknown[]> {
    const { keys, generation } = this.#options
    const { id, claim } = admission
    const json = event === undefined ? '' : encodeEvent(event)
    const counters = event === undefined ? '' : this.#counterNames.of(event)
    const claimed = [claim === undefined ? '' : keys.claim(claim.key), ...this.#claimArguments(admission, answer)]
    const args = [id, json, ...claimed, actual.join(' ')]
    return generation.run(false, (own) => traced('settle', () => this.#batches.add(own, args, counters)))
  }

  /** Settles a call that was recorded as abandoned ('a') or is not known (''); false when that is so no more. */
  async #settleLate(
    { admission, actual, answer }: Settlement,
    state: 'a' | '',
    events: readonly UsageEvent[],
  ): Promise<boolean> {
    const { keys, scripts, generation, settledTtlMs } = this.#options
    const { id, costs, claim } = admission
    const counters = new Set(events.flatMap(periodKeysOf))
    for (const { limit } of costs) if (limit.kind === 'period') counters.add(limit.key)
    const names = [
      keys.generation(),
      keys.reservation(id),
      keys.usage(),
      ...[...counters].map((key) => keys.limit(key)),
    ]
    if (claim !== undefined) names.push(keys.claim(claim.key))
    const args = [
      id,
      state,
      String(settledTtlMs),
      ...this.#claimArguments(admission, answer),
      String(events.length),
      ...events.map(encodeEvent),
      ...actual.map(String),
    ]
    const [outcome, ...ids] = await generation.run(false, (own) => scripts.run('late', names, [own, ...args]))
    if (outcome !== 'settled') return false
    this.#ended(id, events, ids.map(String))
    return true
  }

  /** Fingerprint, how long the answer is kept, and the answer; all '' where there is none. */
  #claimArguments({ claim }: Admission, answer: Uint8Array | undefined): ScriptArgument[] {
    if (claim === undefined) return ['', '', '']
    if (answer === undefined) return [claim.fingerprint, '', '']
    const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength)
    return [claim.fingerprint, String(this.#options.answerTtlMs), bytes]
  }

  #ended(id: string, events: readonly UsageEvent[], entries: readonly string[]): void {
    const { kept } = this.#options
    kept.closed(id)
    events.forEach((event, index) => {
      kept.append({ entry: entries[index] ?? '0-0', event, ended: 's', callId: id })
    })
    this.#options.appended()
  }
}

/** What takes the record of an abandoned call back, and what books it right. */
function correctedBy(abandoned: UsageEvent, right: UsageEvent): UsageEvent[] {
  return correctionOf(abandoned, right, correctionIds(abandoned.id))
}

/** Triples of index, use and threshold. */
function readCrossed(costs: Admission['costs'], reply: readonly string[]): Settled['crossed'][number][] {
  const crossed: Settled['crossed'][number][] = []
  for (let at = 0; at + 2 < reply.length; at += 3) {
    const limit = costs[Number(reply[at])]?.limit
    if (limit?.kind !== 'period') continue
    crossed.push({ limit, used: Number(reply[at + 1]), threshold: reply[at + 2] === '80' ? 80 : 100 })
  }
  return crossed
}

/** The event that a sweep recorded, which this store wrote itself. */
function decodeKnown(json: unknown): UsageEvent {
  const event = decodeEvent(String(json))
  if (event === undefined) throw new TollgateError('INTERNAL', 'an abandoned reservation holds no usage event')
  return event
}
