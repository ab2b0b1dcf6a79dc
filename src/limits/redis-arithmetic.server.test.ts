import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import {
  abandon,
  admit,
  declare,
  forget,
  release,
  remind,
  type Slot,
  seed,
  seedVersion,
  settle,
  states,
} from './buckets.ts'
import { type BucketStep, bucketPrograms, costsOf, limitsOfEveryKind, second } from './buckets-programs.ts'
import { admission } from './conformance-support.ts'
import type { Admission, Limit, LimitState } from './limits.ts'
import { encodePlan, encodeSeeds, type KnownSeed, readStates } from './redis-arguments.ts'
import { RedisKeys } from './redis-keys.ts'
import { RedisScene } from './redis-scene.ts'
import { asArray, type ScriptName } from './redis-scripts.ts'

/**
 * The scripts with a clock that the test sets, beside buckets.ts with the same clock: every number must be the same, in
 * any program, whatever the clock does.
 */
const scripts = new Map<ScriptName, string>()
const keys = new RedisKeys()
const generation = 'g 1'
const clock = 'tg:{limits}:clock'
let scene: RedisScene
let call: (...command: [string, ...(string | number)[]]) => Promise<unknown>

beforeAll(async () => {
  scene = await RedisScene.start({ appendonly: false })
  const redis = await scene.connect()
  call = (...command) => redis.call(...command)
  const prelude = await readScript('buckets')
  const override = `local function now_micros() return tonumber(redis.call('GET', '${clock}')) end`
  for (const name of ['admit', 'settle', 'abandon', 'correct', 'declare', 'remind', 'read'] as const) {
    scripts.set(name, `${prelude}\n${override}\n${await readScript(name)}`)
  }
}, 60_000)
afterAll(() => scene.close())

it('the scripts compute what buckets.ts computes, number by number', async () => {
  await fc.assert(
    fc.asyncProperty(bucketPrograms, (program) => run(program)),
    { numRuns: 150 },
  )
}, 120_000)

async function run(program: readonly BucketStep[]): Promise<void> {
  await call('flushall')
  await call('set', keys.generation(), generation)
  const limits = limitsOfEveryKind()
  const slots = new Map<string, Slot>()
  const open: Admission[] = []
  let now = 1_795_000_000 * second
  const tick = async (micros: number) => {
    now += micros
    await call('set', clock, now)
  }
  await tick(0)
  for (const step of program) {
    if (step.kind === 'tick') await tick(step.micros)
    else if (step.kind === 'admit') {
      const next = admission(costsOf(limits, step.amounts))
      const verdict = await admitted(slots, next, now)
      if (verdict === 'admitted') open.push(next)
    } else if (step.kind === 'settle') {
      const [next] = open.splice(step.call, 1)
      if (next === undefined) continue
      const crossed = settle(slots, next.costs, step.actual, now)
      const told = crossed.flatMap(({ index, used, threshold }) => [index, used, threshold].map(String))
      const [outcome, detail] = await askToSettle(next, '{}', step.actual)
      expect([outcome, ...String(detail).split(' ').slice(1)]).toEqual([
        'settled',
        ...(told.length === 0 ? [''] : told),
      ])
    } else if (step.kind === 'release') {
      const [next] = open.splice(step.call, 1)
      if (next === undefined) continue
      release(slots, next.costs, now)
      const nothing = next.costs.map(() => 0)
      expect(await askToSettle(next, '', nothing)).toEqual(['settled', ' '])
    } else if (step.kind === 'abandon') {
      const [next] = open.splice(step.call, 1)
      if (next === undefined) continue
      abandon(slots, next.costs, now)
      await runScript('abandon', [keys.reservation(next.id), keys.leases(), keys.usage()], [next.id, '60000'])
    } else {
      const month = limits[2 + step.period]
      if (month === undefined || !slots.has(month.key)) continue
      // No version comes twice as long as the clock goes on.
      await tick(1)
      forget(slots, month.key, now)
      const names = [keys.generation(), keys.leases(), keys.usage(), keys.limit(month.key)]
      await runScript('correct', names, [generation, keys.reservations(), '60000', '60000'])
    }
    await sameSlots(slots, limits)
  }
  // Redis loses its data, what is open is declared again, and what was told of thresholds is said.
  const before = new Map(slots)
  await call('flushall')
  await call('set', keys.generation(), generation)
  await tick(second)
  slots.clear()
  for (const next of open) {
    declare(slots, next.costs, now)
    const names = [keys.generation(), keys.reservation(next.id), keys.leases()]
    await runScript('declare', names, [generation, next.id, '60000', encodePlan(next.costs, keys), '{}', ''])
  }
  for (const { key, ...limit } of limits) {
    const told = before.get(key)
    if (told === undefined || !('told80' in told) || limit.kind !== 'period') continue
    remind(slots, key, told)
    const facts = [limit.endsAtMs, told.told80, told.told100].map(String)
    await runScript('remind', [keys.generation(), keys.limit(key)], [generation, ...facts])
  }
  await sameSlots(slots, limits)
  await admitted(slots, admission(costsOf(limits, [1, 1, 1, 1, 1])), now)
}

/** Asks both, seeds what both do not know, and compares what they say. */
async function admitted(slots: Map<string, Slot>, next: Admission, now: number): Promise<string> {
  const limits = next.costs.map((cost) => cost.limit)
  let reply = await askToAdmit(next, new Map())
  if (reply[0] === 'unseeded') {
    const seeds = new Map<number, KnownSeed>()
    const unknown = reply.slice(1).map(String)
    expect(admit(slots, next.costs, now)).toEqual({
      kind: 'unseeded',
      indices: unknown.filter((_, at) => at % 2 === 0).map(Number),
    })
    for (let at = 0; at < unknown.length; at += 2) {
      const [index, version = ''] = [Number(unknown[at]), unknown[at + 1]]
      // Near the thresholds: 120 of the one and 96 of the other.
      const [limit, used] = [limits[index], index === 2 ? 100 : 70]
      if (limit?.kind !== 'period') throw new Error('no period')
      seed(slots, limit, used, seedVersion(slots, limit.key))
      seeds.set(index, { used, version })
    }
    reply = await askToAdmit(next, seeds)
  }
  const before = states(slots, limits, now)
  const verdict = admit(slots, next.costs, now)
  expect(reply[0]).toBe(verdict.kind)
  if (verdict.kind === 'admitted') expect(readStates(reply, 1)).toEqual(verdict.limits)
  if (verdict.kind === 'refused') {
    expect([reply[1], Number(reply[2])]).toEqual([verdict.refusedBy, verdict.retryAfterMs])
    expect(readStates(reply, 3)).toEqual(before)
  }
  const args = [generation, encodePlan(next.costs, keys), '', keys.holding('')]
  const read: LimitState[] = readStates(await runScript('read', [keys.generation(), keys.holdings()], args), 1)
  expect(read).toEqual(states(slots, limits, now))
  return verdict.kind
}

async function askToAdmit(
  { id, costs }: Admission,
  seeds: ReadonlyMap<number, KnownSeed>,
): Promise<readonly unknown[]> {
  const facts = [id, '60000', encodePlan(costs, keys), '{}', '', '', encodeSeeds(seeds)]
  const names = [keys.generation(), keys.leases()]
  return asArray((await runScript('admit', names, [generation, keys.reservations(), ...facts]))[0])
}

/** Without an event it is released. */
async function askToSettle({ id }: Admission, event: string, actual: readonly number[]): Promise<readonly unknown[]> {
  const head = [generation, keys.reservations(), '60000', '0']
  const names = [keys.generation(), keys.leases(), keys.usage()]
  const args = [...head, id, event, '', '', '', '', actual.join(' '), '0']
  return asArray((await runScript('settle', names, args))[0])
}

/** What is stored, without versions: those of Lua begin with the first question. */
async function sameSlots(slots: ReadonlyMap<string, Slot>, limits: readonly Limit[]): Promise<void> {
  for (const limit of limits) {
    const stored = await call('get', keys.limit(limit.key))
    expect([limit.kind, withoutVersion(stored)]).toEqual([limit.kind, textOf(slots.get(limit.key))])
  }
}

function withoutVersion(stored: unknown): unknown {
  return typeof stored === 'string' ? stored.replace(/^(\S+ \d+) \d+ (\d+ \d+)$/, '$1 $2') : stored
}

function textOf(slot: Slot | undefined): string | null {
  switch (slot?.kind) {
    case 'bucket':
      return `${slot.level} ${slot.at}`
    case 'period':
      return `${slot.used} ${slot.held} ${slot.told80} ${slot.told100}`
    case 'unknown':
      return `u ${slot.held} ${slot.told80} ${slot.told100}`
    case 'concurrency':
      return slot.open === 0 ? null : String(slot.open)
    default:
      return null
  }
}

async function runScript(
  name: ScriptName,
  names: readonly string[],
  args: readonly string[],
): Promise<readonly unknown[]> {
  return asArray(await call('eval', scripts.get(name) ?? '', names.length, ...names, ...args))
}

function readScript(name: string): Promise<string> {
  return readFile(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}
