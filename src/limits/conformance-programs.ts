import fc from 'fast-check'
import { expect, it } from 'vitest'
import { noTokens } from '../metering/usage-event.ts'
import {
  admission,
  bucket,
  concurrency,
  type FakeLedger,
  period,
  settlement,
  usageEvent,
  uuid,
} from './conformance-support.ts'
import type { Admission, AdmissionResult, Limit, LimitCost, Limits, PeriodLimit } from './limits.ts'
import { type Crossing, type ModelCall, ProgramModel } from './program-model.ts'

/** An empty store with a clock that the program sets, and the ways in which it fails. */
export interface ProgramWorld {
  /** Those that share the limits now; a call ends where it began. */
  readonly processes: readonly Limits[]
  readonly ledger: FakeLedger
  setClock(nowMs: number): Promise<void>
  /** The store's next answer to this call is lost on its way, where answers can be. */
  loseAnswer(callId: string): void
  /** The store loses its data, and has again what is to be had. */
  loseData(): Promise<void>
  /** What a loss of data is: of a store beside its processes, or of the process itself. */
  readonly loses: 'store' | 'process'
  close(): Promise<void>
}

type Step =
  | {
      readonly kind: 'admit'
      readonly amounts: readonly number[]
      readonly by: number
      readonly claim: readonly [key: number, fingerprint: string] | undefined
      readonly isLost: boolean
    }
  /** Of the calls so far, counted from the newest; also of settled and of abandoned ones. */
  | { readonly kind: 'admit again'; readonly back: number }
  | {
      readonly kind: 'settle'
      readonly back: number
      readonly actual: readonly number[]
      readonly answer: number | undefined
      readonly isLost: boolean
    }
  /** So much more or less of each period. */
  | { readonly kind: 'correct'; readonly tokens: number; readonly nanos: number }
  /** Somebody sets the capacity of a period. */
  | { readonly kind: 'resize'; readonly capacity: number }
  /** The clock goes on, or jumps back, and leases that ran out are swept. */
  | { readonly kind: 'tick'; readonly ms: number }
  /** The ledger takes what the usage log holds. */
  | { readonly kind: 'drain' }
  | { readonly kind: 'read' }
  | { readonly kind: 'lose data' }

/** Of each period, so that no correction leads below 0. */
const usedBefore = 300

/**
 * The clock moves in whole steps and a lease is half a step shorter than six: whether it ran out does not depend on the
 * few milliseconds that a process takes to give back what is left of it.
 */
const tickMs = 10_000
const leaseMs = 55_000
/** The clock goes no further: settled calls are remembered for longer. */
const mostMs = 500_000
/** Behind the latest that it was it goes back no further: full buckets are remembered for longer. */
const mostBackMs = 50_000

const amounts = fc.tuple(fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(2))
const change = fc.integer({ min: -10, max: 10 })
const back = fc.nat(5)
const rarely = fc.nat(9).map((value) => value === 0)
const claim = fc.option(fc.tuple(fc.nat(2), fc.constantFrom('a', 'a', 'a', 'b')), { nil: undefined, freq: 1 })

const programs: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ kind: fc.constant('admit' as const), amounts, by: fc.nat(1), claim, isLost: rarely }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('admit again' as const), back }) },
    {
      weight: 7,
      arbitrary: fc.record({
        kind: fc.constant('settle' as const),
        back,
        actual: amounts,
        answer: fc.option(fc.nat(255), { nil: undefined }),
        isLost: rarely,
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('correct' as const), tokens: change, nanos: change }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('resize' as const), capacity: fc.integer({ min: 320, max: 480 }) }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('tick' as const),
        ms: fc.constantFrom(1, 1, 2, 6, 7, -1, -5).map((ticks) => ticks * tickMs),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('drain' as const) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('lose data' as const) }) },
  ),
  { minLength: 1, maxLength: 40, size: 'max' },
)

/**
 * Runs random programs on fresh limits of every kind and on {@link ProgramModel} beside them: every answer must be the
 * same, number by number. `TOLLGATE_TEST_SEED` repeats a run, `TOLLGATE_TEST_RUNS` makes it longer.
 */
export function programConformance(name: string, makeWorld: () => Promise<ProgramWorld>): void {
  const { TOLLGATE_TEST_SEED: givenSeed, TOLLGATE_TEST_RUNS: runs = 60 } = process.env
  const seed = Number(givenSeed ?? Date.now() % 1_000_000_000)
  it(`${name} answers random programs as the pure arithmetic does, seed ${seed}`, async () => {
    await fc.assert(
      fc.asyncProperty(programs, async (program) => {
        const world = await makeWorld()
        try {
          await new ProgramRun(world).run(program)
        } finally {
          await world.close()
        }
      }),
      { seed, numRuns: Number(runs) },
    )
  }, 3_600_000)
}

/** One program on one store. */
class ProgramRun {
  readonly #world: ProgramWorld
  readonly #model: ProgramModel
  readonly #startMs = Date.now()
  readonly #scope = { kind: 'consumer', id: uuid(), serviceId: undefined } as const
  readonly #claims = [0, 1, 2].map((index) => `claim|consumer:${this.#scope.id}|${index}`)
  readonly #told = new Set<string>()
  #latestMs = this.#startMs
  #tokens: PeriodLimit = period({ capacity: usedBefore + 90, scope: this.#scope })
  readonly #money = period({ capacity: usedBefore + 80, scope: this.#scope, unit: 'nanos' })
  readonly #others: readonly Limit[] = [
    bucket({ capacity: 40 }),
    bucket({ capacity: 60, refill: 120, windowMs: 60_000 }),
    concurrency(4),
  ]

  constructor(world: ProgramWorld) {
    this.#world = world
    for (const { key } of [this.#tokens, this.#money]) world.ledger.usedBefore.set(key, usedBefore)
    this.#model = new ProgramModel(this.#startMs, world.ledger.usedBefore)
  }

  async run(program: readonly Step[]): Promise<void> {
    await this.#world.setClock(this.#startMs)
    for (const step of program) await this.#take(step)
    for (const call of [...this.#model.calls]) await this.#settle(call, [1, 1, 1, 1, 1], undefined, false)
    await this.#read()
    await this.#drain()
    await this.#correct(0, 0)
    await this.#read()
  }

  async #take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'admit': {
        const [key, fingerprint] = step.claim ?? []
        const claimKey = key === undefined ? undefined : this.#claims[key]
        const held =
          claimKey === undefined || fingerprint === undefined ? {} : { claim: { key: claimKey, fingerprint } }
        return this.#admit(admission(this.#costs(step.amounts), { leaseMs, ...held }), step.by, step.isLost)
      }
      case 'admit again': {
        const call = this.#model.calls[step.back]
        if (call === undefined || call.isForgotten) return
        return this.#admit(call.admission, call.by, false)
      }
      case 'settle': {
        const call = this.#model.calls[step.back]
        const answer = step.answer === undefined ? undefined : Uint8Array.of(step.answer)
        if (call !== undefined) await this.#settle(call, step.actual, answer, step.isLost)
        return
      }
      case 'correct':
        return this.#correct(step.tokens, step.nanos)
      case 'resize':
        this.#tokens = { ...this.#tokens, capacity: step.capacity }
        return
      case 'tick':
        return this.#tick(step.ms)
      case 'drain':
        return this.#drain()
      case 'read':
        return this.#read()
      case 'lose data':
        return this.#loseData()
    }
  }

  async #admit(call: Admission, by: number, isLost: boolean): Promise<void> {
    const process = this.#process(by)
    if (isLost) this.#world.loseAnswer(call.id)
    const before = this.#passable()
    const result = await process.admit(call).catch((error: unknown) => {
      if (!isLost) throw error
    })
    if (result === undefined) {
      // What it took, if it was admitted, is released with the next sweep at the latest.
      this.#model.admit(call, by)
      this.#model.giveBack(call.id)
      await this.#sweep()
      return
    }
    const isNew = !this.#model.calls.some(({ admission: { id } }) => id === call.id)
    expect(result).toEqual(this.#model.admit(call, by))
    if (isNew) this.#fits(call, result, before)
  }

  async #settle(call: ModelCall, actual: readonly number[], answer: Uint8Array | undefined, isLost: boolean) {
    if (call.isForgotten) return
    const process = this.#process(call.by)
    const request = settlement(call.admission, actual, answer)
    if (isLost) this.#world.loseAnswer(call.admission.id)
    const expected = this.#model.settle(call, actual, answer)
    const told: Crossing[] = []
    const first = await process.settle(request).catch((error: unknown) => {
      if (!isLost) throw error
    })
    told.push(...(first?.crossed ?? []))
    if (isLost) told.push(...(await process.settle(request)).crossed)
    expect(told).toEqual(expected)
    for (const { limit, threshold } of told) {
      const what = `${threshold} of ${limit.capacity} ${limit.unit}`
      expect(this.#told).not.toContain(what)
      this.#told.add(what)
    }
  }

  async #correct(tokens: number, nanos: number): Promise<void> {
    const event = usageEvent({ consumerId: this.#scope.id, tokens: { ...noTokens, input: tokens }, costNanos: nanos })
    const counters = [this.#tokens.key, this.#money.key]
    await this.#process(0).correct({ events: [event], counters })
    this.#model.correct(
      new Map([
        [this.#tokens.key, tokens],
        [this.#money.key, nanos],
      ]),
    )
  }

  async #tick(ms: number): Promise<void> {
    const wanted = Math.max(this.#model.nowMs + ms, this.#latestMs - mostBackMs)
    this.#model.nowMs = Math.min(wanted, this.#startMs + mostMs)
    this.#latestMs = Math.max(this.#latestMs, this.#model.nowMs)
    await this.#world.setClock(this.#model.nowMs)
    await this.#sweep()
  }

  async #sweep(): Promise<void> {
    expect(await this.#process(1).usageLog.sweep()).toBe(this.#model.sweep())
  }

  async #drain(): Promise<void> {
    for (const { usageLog } of this.#world.processes) {
      const batch = await usageLog.read(1_000, 0, new AbortController().signal)
      this.#world.ledger.take(batch.events())
      await batch.acknowledge()
    }
  }

  async #read(): Promise<void> {
    const all = this.#limits()
    expect(await this.#process(1).read(all)).toEqual(this.#model.read(all))
  }

  async #loseData(): Promise<void> {
    await this.#world.loseData()
    if (this.#world.loses === 'store') this.#model.loseStore()
    else this.#model.loseProcess()
  }

  /** What may still be admitted of each period, by the ledger and the open calls alone. */
  #passable(): number[] {
    return [this.#tokens, this.#money].map(({ key, capacity }) => {
      const { used, held } = this.#model.usage(key)
      return capacity - used - held
    })
  }

  /** The bound on what is admitted, told without the arithmetic of limits. */
  #fits({ costs }: Admission, { outcome }: AdmissionResult, before: readonly number[]): void {
    if (outcome !== 'admitted') return
    const amounts = costs.filter(({ limit }) => limit.kind === 'period').map((cost) => cost.amount)
    amounts.forEach((amount, index) => {
      expect(amount).toBeLessThanOrEqual(before[index] ?? 0)
    })
  }

  #process(index: number): Limits {
    const { processes } = this.#world
    const process = processes[index % processes.length]
    if (process === undefined) throw new Error('no process lives')
    return process
  }

  #limits(): Limit[] {
    const [second, minute, calls] = this.#others
    if (second === undefined || minute === undefined || calls === undefined) throw new Error('a limit is missing')
    return [second, minute, this.#tokens, this.#money, calls]
  }

  #costs(values: readonly number[]): LimitCost[] {
    return this.#limits().map((limit, index) => ({ limit, amount: values[index] ?? 0 }))
  }
}
