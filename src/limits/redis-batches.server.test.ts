import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { RedisClient } from '../storage/redis.ts'
import { limitsOfEveryKind, second, ticks } from './buckets-programs.ts'
import { period, uuid } from './conformance-support.ts'
import { GroupCommit } from './group-commit.ts'
import type { Limit } from './limits.ts'
import { encodePlan, encodeSeeds } from './redis-arguments.ts'
import { admitAll, settleAll } from './redis-batches.ts'
import { RedisKeys } from './redis-keys.ts'
import { RedisScene } from './redis-scene.ts'
import { asArray } from './redis-scripts.ts'

/**
 * Groups of calls run as one script each, beside the same calls run one by one with the same clock: every answer and all
 * that is kept must be the same.
 */
interface Call {
  /** Of few: the same id comes again. */
  readonly id: number
  readonly amounts: readonly number[]
  /** Somebody set another capacity, also while calls with the one before are on their way. */
  readonly isWide: boolean
  readonly claim: readonly [key: number, fingerprint: string] | undefined
  readonly end: 'event' | 'event with answer' | 'release'
}

interface Group {
  readonly kind: 'admit' | 'settle'
  readonly calls: readonly Call[]
  readonly micros: number
}

const generation = 'g 1'
const clock = 'clock'
let scene: RedisScene
let redis: RedisClient
const lua = new Map<string, string>()

beforeAll(async () => {
  scene = await RedisScene.start({ appendonly: false })
  redis = await scene.connect()
  const prelude = await readScript('buckets')
  const override = `local function now_micros() return tonumber(redis.call('GET', '${clock}')) end`
  for (const name of ['admit', 'settle']) lua.set(name, `${prelude}\n${override}\n${await readScript(name)}`)
}, 60_000)
afterAll(() => scene.close())

const call: fc.Arbitrary<Call> = fc.record({
  id: fc.nat(15),
  amounts: fc.tuple(fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(25), fc.nat(2)),
  isWide: fc.boolean(),
  claim: fc.option(fc.tuple(fc.nat(2), fc.constantFrom('a', 'a', 'b')), { nil: undefined, freq: 2 }),
  end: fc.constantFrom('event', 'event', 'event with answer', 'release'),
})
const groups: fc.Arbitrary<Group[]> = fc.array(
  fc.record({
    kind: fc.constantFrom('admit', 'admit', 'settle'),
    calls: fc.array(call, { minLength: 1, maxLength: 8 }),
    micros: ticks,
  }),
  { minLength: 1, maxLength: 12 },
)

it('a batch answers and keeps what its calls would one by one', async () => {
  await fc.assert(
    fc.asyncProperty(groups, (program) => run(program)),
    { numRuns: 150 },
  )
}, 240_000)

async function run(program: readonly Group[]): Promise<void> {
  await redis.call('flushall')
  const [together, alone] = [new Store('together'), new Store('alone')]
  for (const { keys } of [together, alone]) await redis.call('set', keys.generation(), generation)
  const all = [
    ...limitsOfEveryKind(),
    period({ capacity: 90, scope: { kind: 'service', id: uuid(), serviceId: undefined } }),
  ]
  const versions = new Map<number, string>()
  let now = 1_795_000_000 * second
  for (const { kind, calls, micros } of program) {
    now += micros
    await redis.call('set', clock, now)
    const answers: (readonly unknown[])[] = []
    for (const next of calls) answers.push(await alone.run(kind, next, all, versions))
    expect(await Promise.all(calls.map((next) => together.run(kind, next, all, versions)))).toEqual(answers)
    for (const [outcome, ...unknown] of answers) {
      if (outcome !== 'unseeded') continue
      for (let at = 0; at < unknown.length; at += 2) versions.set(Number(unknown[at]), String(unknown[at + 1]))
    }
    expect(await together.state()).toEqual(await alone.state())
  }
}

class Store {
  readonly keys: RedisKeys
  readonly #prefix: string
  readonly #admissions: GroupCommit
  readonly #settlements: GroupCommit

  constructor(prefix: string) {
    this.#prefix = prefix
    this.keys = new RedisKeys(prefix)
    const scripts = {
      runBatch: (name: string, keys: readonly string[], args: readonly (string | Buffer)[]) =>
        redis.call('eval', lua.get(name) ?? '', keys.length, ...keys, ...args),
    }
    const parts = { scripts, keys: this.keys, settledTtlMs: 60_000 }
    this.#admissions = new GroupCommit((batch) => admitAll(parts, batch))
    this.#settlements = new GroupCommit((batch) => settleAll(parts, batch))
  }

  /** What the call is answered; without the id of an entry, which is another one in each stream. */
  async run(kind: Group['kind'], call: Call, all: readonly Limit[], versions: ReadonlyMap<number, string>) {
    if (kind === 'admit') return this.#admit(call, all, versions)
    const [outcome, detail] = await this.#settle(call, all)
    return [outcome, String(detail).replace(/^\d+-\d+/, 'entry')]
  }

  #admit({ id, amounts, isWide, claim }: Call, all: readonly Limit[], versions: ReadonlyMap<number, string>) {
    const costs = amounts.map((amount, index) => ({ limit: sized(all[index], isWide), amount }))
    const seeds = new Map([...versions].map(([index, version]) => [index, { used: 60, version }]))
    const claimed = claim === undefined ? ['', ''] : [this.keys.claim(String(claim[0])), claim[1]]
    const facts = [String(id), '60000', encodePlan(costs, this.keys), `{"id":${id}}`, ...claimed, encodeSeeds(seeds)]
    return this.#admissions.add(generation, facts)
  }

  #settle({ id, amounts, claim, end }: Call, all: readonly Limit[]) {
    const claimed = claim === undefined ? ['', ''] : [this.keys.claim(String(claim[0])), claim[1]]
    const answer = claim === undefined || end !== 'event with answer' ? ['', ''] : ['60000', 'answer']
    const event = end === 'release' ? '' : `{"id":${id}}`
    // Of the one before the last no call holds anything: its limit is new.
    const counters = end === 'release' ? '' : [2, 3, 5].map((at) => this.keys.limit(all[at]?.key ?? '')).join('\t')
    return this.#settlements.add(generation, [String(id), event, ...claimed, ...answer, amounts.join(' ')], counters)
  }

  /** Everything that is kept, and whether it has an end. */
  async state(): Promise<unknown[]> {
    const names = asArray(await redis.call('keys', `${this.#prefix}:*`)).map(String)
    const kept: unknown[] = []
    for (const name of names.sort()) {
      const type = await redis.call('type', name)
      const value =
        type === 'zset'
          ? await redis.call('zrange', name, 0, -1, 'WITHSCORES')
          : type === 'stream'
            ? asArray(await redis.call('xrange', name, '-', '+')).map((entry) => asArray(entry)[1])
            : String(await redis.call('get', name)).replace(/^s\d+-\d+/, 'sentry')
      const hasEnd = Number(await redis.call('pttl', name)) > 0
      kept.push([name, value, hasEnd])
    }
    return JSON.parse(JSON.stringify(kept).replaceAll(this.#prefix, ''))
  }
}

function sized(limit: Limit | undefined, isWide: boolean): Limit {
  if (limit === undefined) throw new Error('no limit')
  return isWide ? { ...limit, capacity: limit.capacity + 17 } : limit
}

function readScript(name: string): Promise<string> {
  return readFile(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}
