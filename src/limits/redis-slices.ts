import { newId } from '../ids.ts'
import { PassingMap } from '../passing-map.ts'
import type { RedisClient } from '../storage/redis.ts'
import type { SlicesSample } from '../telemetry/metric-sources.ts'
import type { Admission, Limit, LimitCost, LimitState } from './limits.ts'
import { describeLimit, readStates } from './redis-arguments.ts'
import type { RedisGeneration } from './redis-generation.ts'
import type { RedisKept } from './redis-kept.ts'
import type { RedisKeys } from './redis-keys.ts'
import { asArray, type RedisScripts } from './redis-scripts.ts'
import { isSliceable, lookEveryMs, Slice, type SliceMove } from './slice.ts'
import { SliceBatch, type SliceRun, type SpentCall, sliceArguments } from './slice-batch.ts'
import { SliceLane } from './slice-lane.ts'

export interface RedisSlicesOptions {
  readonly redis: RedisClient
  readonly scripts: RedisScripts
  readonly keys: RedisKeys
  readonly kept: RedisKept
  readonly generation: RedisGeneration
  /** Percent of what is left of a limit that all processes together may hold. */
  readonly percent: number
  /** How long Redis keeps for this process what it holds and does not renew. */
  readonly leaseMs: number
}

/** A call that was taken from slices. */
export interface Spending {
  /**
   * True: it is admitted, and Redis holds its reservation whatever becomes of this process. False: Redis must be asked.
   * Rejects with LIMITS_UNAVAILABLE when it is not admitted and Redis may have its reservation, which must be released.
   */
  readonly written: Promise<boolean>
  readonly states: readonly LimitState[]
}

/** Limits of one run: others wait for it. */
const maxMoves = 128
/** Limits that are counted; of more, those with few calls are forgotten. */
const maxSlices = 10_000
/** How long a run may take until calls ask Redis, on the other connection. */
const maxSilentMs = 100
const renewEveryMs = 1_000
const tidyEveryMs = 200

/**
 * **Slices** of limits: what this process took from Redis in advance, and spends on calls without waiting for an answer.
 *
 * A slice is held in Redis as what it is: taken from its limit, under a **holding** of this process that ends unless it
 * is renewed. A call that is admitted from slices is on its way to Redis, with its reservation, when it is answered: Redis
 * moves its units from the holding to the reservation. So whoever looks in Redis sees each unit once, as left, in a holding
 * or in a reservation, and a process that is killed leaves its calls to the sweep as ever, and the rest of its holding to
 * `reclaim.lua`.
 *
 * Everything that is said of slices goes over a connection of its own, one **run** of `slices.lua` after the other, so that
 * a run that was written is delivered ({@link SliceLane}). Calls that come during a run share the next one. So at most one
 * run's calls are admitted that Redis has not heard of; a call is not settled before it has.
 *
 * When a run fails, nobody knows what it did: nothing is spent of that holding any more, its calls are sent again until
 * Redis says that it has them (those it knows take nothing), and then what is left of it goes back. When Redis lost
 * its data, the holding is gone with them, and the calls are given back like all open calls (`redis-generation.ts`). When
 * the holding ended, because this process was stopped for so long, the next run says so, and what it had is not spent.
 */
export class RedisSlices {
  readonly #options: RedisSlicesOptions
  /** Undefined: there are no slices. */
  readonly #lane: SliceLane | undefined
  /** By the key of the limit. */
  readonly #slices = new Map<string, Slice>()
  /** Those that calls took from in the last moments. */
  readonly #busy = new Set<Slice>()
  #batches: SliceBatch[] = []
  #moves: (readonly [Slice, SliceMove])[] = []
  #movesUnderWay: SliceRun['moves'] = []
  /** Calls that Redis has not said yet that it holds, by id. */
  readonly #unheard = new PassingMap<string, SpentCall>()
  /** Of these, the calls of a run that failed. */
  readonly #unsure = new Set<SpentCall>()
  #running: Promise<void> | undefined
  #askedAt = 0
  #generation = ''
  #holder = ''
  /** Redis knows the holding. */
  #isHolding = false
  #heldUntil = 0
  /** Holdings of which nothing is spent any more. */
  readonly #left = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #tidying: NodeJS.Timeout | undefined
  readonly #counts = { admitted: 0, taken: 0, returned: 0 }
  #isClosed = false

  private constructor(options: RedisSlicesOptions, lane: SliceLane | undefined) {
    this.#options = options
    this.#lane = lane
  }

  /** Connects, unless there are to be no slices. */
  static async open(options: RedisSlicesOptions): Promise<RedisSlices> {
    const { redis, scripts, percent } = options
    return new RedisSlices(options, percent === 0 ? undefined : await SliceLane.open(redis, scripts))
  }

  /** Takes the call from slices; undefined when Redis must be asked. */
  admit(admission: Admission): Spending | undefined {
    const { costs, claim, id } = admission
    if (this.#lane === undefined || this.#isClosed || claim !== undefined || costs.length === 0) return undefined
    const now = performance.now()
    const slices = this.#worthIt(costs, now)
    if (slices === undefined) return undefined
    this.#timer ??= setTimeout(() => this.#look(), lookEveryMs).unref()
    const isSilent = this.#running !== undefined && now > this.#askedAt + maxSilentMs
    if (isSilent || !this.#isUsable(now) || this.#options.kept.isOpen(id) || !spendAll(slices, costs)) return undefined
    const batch = this.#openBatch()
    batch.calls.push({ admission, slices, holder: this.#holder })
    return { written: batch.written, states: slices.map((slice) => slice.state()) }
  }

  /**
   * Gives back what this process has of the limit, so that Redis can decide on all that is left; false when there was
   * nothing. Of what is on its way there or here, too: so a process that is alone refuses no call that there is room for.
   */
  async giveBack({ key }: Limit): Promise<boolean> {
    const slice = this.#slices.get(key)
    for (let isBack = false; ; isBack = true) {
      if (slice === undefined || slice !== this.#slices.get(key)) return isBack
      const back = slice.giveBack(performance.now())
      if (back > 0) this.#moves.push([slice, { back, wanted: 0, least: 0 }])
      this.#pump()
      const isMoving = [...this.#moves, ...this.#movesUnderWay].some(([moved]) => moved === slice)
      if (!isMoving || this.#running === undefined) return isBack
      await this.#running
    }
  }

  /** Resolves when Redis holds the reservation of the call: it may be settled. Throws LIMITS_UNAVAILABLE. */
  async heard(id: string): Promise<void> {
    if (!this.#unheard.has(id)) return
    await this.#running
    const call = this.#unheard.get(id)
    if (call !== undefined) await this.#sendAgain(call)
  }

  /** Sends again what Redis may not have, and then gives back what is left of holdings that were given up. */
  async tidy(): Promise<void> {
    await this.#running
    const { scripts, keys } = this.#options
    const left = [...this.#left]
    await Promise.all([...this.#unsure].map((call) => this.#sendAgain(call)))
    for (const holder of left) {
      await scripts.run('reclaim', [keys.holdings()], [keys.holding(''), holder])
      this.#left.delete(holder)
    }
  }

  sample(): Omit<SlicesSample, 'asked'> {
    let [slices, units] = [0, 0]
    for (const slice of this.#busy) {
      if (slice.units > 0) slices += 1
      units += slice.units
    }
    return { slices, units, ...this.#counts }
  }

  /** Gives everything back, if Redis answers. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    while (this.#batches.length > 0) await this.#batches[0]?.written.catch(() => undefined)
    await this.#running
    clearTimeout(this.#tidying)
    this.#begin('')
    if (this.#lane !== undefined) await this.tidy().catch(() => undefined)
    this.#lane?.close()
  }

  /** The slices of all costs, where each is worth it. */
  #worthIt(costs: readonly LimitCost[], now: number): Slice[] | undefined {
    const slices: Slice[] = []
    let isWorthIt = true
    for (const { limit, amount } of costs) {
      const slice = isSliceable(limit, amount, this.#options.percent) ? this.#sliceOf(limit) : undefined
      if (slice === undefined) return undefined
      isWorthIt = slice.isWorthIt(now) && isWorthIt
      slices.push(slice)
    }
    // Slices of the others are worth nothing where one limit has none.
    if (!isWorthIt) return undefined
    for (let index = 0; index < slices.length; index++) {
      const slice = slices[index]
      if (slice === undefined) continue
      slice.note(costs[index]?.amount ?? 0)
      this.#busy.add(slice)
    }
    return slices
  }

  #sliceOf(limit: Limit): Slice | undefined {
    const slice = this.#slices.get(limit.key)
    if (slice?.limit === limit) return slice
    const text = describeLimit(limit, this.#options.keys)
    if (slice?.text === text) return slice
    // Another capacity: what is held of the one before goes back when nobody spends it any more.
    if (slice !== undefined && this.#busy.has(slice)) return undefined
    if (this.#slices.size >= maxSlices) this.#forgetOthers()
    const made = new Slice(limit, text)
    this.#slices.set(limit.key, made)
    return made
  }

  #forgetOthers(): void {
    for (const [key, slice] of this.#slices) if (!this.#busy.has(slice)) this.#slices.delete(key)
  }

  /** Whether what is held may be spent: Redis holds it for this process, and nobody admits on other data. */
  #isUsable(now: number): boolean {
    const isOwn = this.#generation !== '' && this.#options.generation.current === this.#generation
    // So there is never more than one run that Redis did not hear of.
    return this.#unsure.size === 0 && isOwn && now < this.#heldUntil && this.#lane?.isReady === true
  }

  /** Calls of the same turn of the event loop, and those that come during a run, are of one batch. */
  #openBatch(): SliceBatch {
    const last = this.#batches.at(-1)
    if (last !== undefined && !last.isFull && last.holder === this.#holder) return last
    const batch = new SliceBatch(this.#holder)
    this.#batches.push(batch)
    if (this.#batches.length === 1 && this.#running === undefined) setImmediate(() => this.#pump())
    return batch
  }

  #look(): void {
    this.#timer = undefined
    const { current } = this.#options.generation
    const now = performance.now()
    if (current !== undefined && current !== this.#generation) this.#begin(current)
    // Unless what an earlier look asked for is not sent yet.
    if (this.#generation !== '' && this.#moves.length === 0) {
      for (const slice of this.#busy) {
        const move = slice.look(now)
        if (move !== undefined) this.#moves.push([slice, move])
        if (slice.isIdle) this.#busy.delete(slice)
      }
    }
    this.#pump()
    const isOver = this.#busy.size === 0 && this.#running === undefined
    if (isOver && this.#isHolding) this.#begin('')
    if (!isOver && !this.#isClosed) this.#timer = setTimeout(() => this.#look(), lookEveryMs).unref()
  }

  /** Nothing is spent of what was held until now. */
  #begin(generation: string): void {
    for (const { limit } of this.#busy) this.#slices.delete(limit.key)
    this.#busy.clear()
    this.#moves = []
    if (this.#holder !== '') this.#left.add(this.#holder)
    if (this.#left.size > 0) this.#tidySoon()
    this.#generation = generation
    this.#holder = generation === '' ? '' : newId()
    this.#isHolding = false
    this.#heldUntil = 0
  }

  /** Starts the next run, unless one is under way or nothing is to be said. */
  #pump(): void {
    if (this.#running !== undefined || this.#lane === undefined) return
    const now = performance.now()
    const batch = this.#nextBatch(now)
    const moves = this.#moves.splice(0, maxMoves)
    const isRenewal = this.#isHolding && now > this.#askedAt + renewEveryMs
    if (batch === undefined && moves.length === 0 && !isRenewal) return
    if (!this.#lane.isReady) {
      this.#begin('')
      return
    }
    this.#movesUnderWay = moves
    this.#running = this.#run(this.#lane, batch, moves).then(() => {
      this.#movesUnderWay = []
      this.#running = undefined
      this.#pump()
    })
  }

  #nextBatch(now: number): SliceBatch | undefined {
    for (;;) {
      const batch = this.#batches.shift()
      const isHolding = batch?.holder === this.#holder
      if (batch === undefined || (isHolding && this.#isUsable(now))) return batch
      batch.takeBack(isHolding)
    }
  }

  /** Never rejects. */
  async #run(lane: SliceLane, batch: SliceBatch | undefined, moves: SliceRun['moves']): Promise<void> {
    const { keys, kept, leaseMs } = this.#options
    const calls = batch?.calls ?? []
    const [holder, sentAt] = [this.#holder, performance.now()]
    this.#askedAt = sentAt
    for (const call of calls) {
      kept.opened(call.admission)
      this.#unheard.set(call.admission.id, call)
    }
    const run = { holder, begins: !this.#isHolding, calls, moves }
    const { isInKernel, reply } = lane.run(keysOf(keys), [
      this.#generation,
      ...sliceArguments(run, keys, this.#options),
    ])
    // Unless this process was stopped since it looked whether it may: then Redis says whether the holding is still there.
    if (isInKernel && this.#isUsable(performance.now())) batch?.go()
    const [outcome, ...given] = await reply.then(asArray, () => ['failed'])
    if (outcome === 'failed') lane.reset()
    const isHeard = outcome === 'moved' || outcome === 'lost'
    if (outcome === 'moved') batch?.go()
    const isGone = batch?.isGone === true
    for (const call of calls) {
      const { id } = call.admission
      if (!isGone) kept.closed(id)
      if (isHeard || !isGone) this.#unheard.delete(id)
      else this.#unsure.add(call)
    }
    if (isGone) this.#counts.admitted += calls.length
    else batch?.fail()
    if (holder === this.#holder && outcome === 'moved') {
      this.#isHolding = true
      this.#heldUntil = sentAt + leaseMs - renewEveryMs
      this.#moved(moves, given)
    } else if (holder === this.#holder) {
      this.#begin('')
    }
    if (!isHeard) this.#tidySoon()
  }

  #moved(moves: SliceRun['moves'], given: readonly unknown[]): void {
    const now = performance.now()
    let at = 0
    for (const [slice, { back, wanted }] of moves) {
      this.#counts.returned += back
      if (wanted === 0) continue
      const [units, ...state] = given.slice(at, at + 3).map(String)
      if (Number(units) > 0) this.#counts.taken += 1
      slice.given(Number(units), state[0] === '' ? undefined : readStates(state, 0)[0], now)
      at += 3
    }
  }

  #tidySoon(): void {
    if (this.#isClosed || this.#tidying !== undefined) return
    this.#tidying = setTimeout(() => {
      this.#tidying = undefined
      void this.tidy().catch(() => this.#tidySoon())
    }, tidyEveryMs).unref()
  }

  async #sendAgain(call: SpentCall): Promise<void> {
    const { generation, scripts, keys } = this.#options
    const args = sliceArguments({ holder: call.holder, begins: false, calls: [call], moves: [] }, keys, this.#options)
    await generation.run(false, (own) => scripts.run('slices', keysOf(keys), [own, ...args]))
    this.#unheard.delete(call.admission.id)
    this.#unsure.delete(call)
  }
}

/** Names of slices.lua. */
function keysOf(keys: RedisKeys): string[] {
  return [keys.generation(), keys.leases(), keys.holdings()]
}

/** Takes every cost from its slice, or none. */
function spendAll(slices: readonly Slice[], costs: readonly LimitCost[]): boolean {
  for (let index = 0; index < costs.length; index++) {
    const amount = costs[index]?.amount ?? 0
    const slice = slices[index]
    if (slice === undefined || slice.units < Math.max(1, amount)) {
      for (let taken = 0; taken < index; taken++) slices[taken]?.spend(-(costs[taken]?.amount ?? 0))
      return false
    }
    slice.spend(amount)
  }
  return true
}
