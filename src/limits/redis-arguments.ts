import type { UsageEvent } from '../metering/usage-event.ts'
import { partsOf } from './buckets.ts'
import { periodKeysOf } from './limit-keys.ts'
import type { Limit, LimitCost, LimitState } from './limits.ts'
import type { RedisKeys } from './redis-keys.ts'

/** What the ledger said of a period that a script did not know. */
export interface KnownSeed {
  readonly used: number
  /** The version that it was asked at. */
  readonly version: string
}

/** What a reservation takes, as `read_plan` of buckets.lua reads it. */
export function encodePlan(costs: readonly LimitCost[], keys: RedisKeys): string {
  let plan = ''
  for (const { limit, amount } of costs) plan += `${plan === '' ? '' : '\t'}${amount} ${describeLimit(limit, keys)}`
  return plan
}

/** Seeds by the index of their limits, as `load_known` of buckets.lua reads them. */
export function encodeSeeds(seeds: ReadonlyMap<number, KnownSeed>): string {
  return [...seeds].map(([index, { used, version }]) => `${index} ${used} ${version}`).join()
}

/** Names of the period counters that an event moves beside those that its reservation holds. */
export function otherCounters(event: UsageEvent, held: readonly string[], keys: RedisKeys): string[] {
  return periodKeysOf(event).flatMap((key) => (held.includes(key) ? [] : [keys.limit(key)]))
}

/** What a plan holds of period counters, by their keys. */
export function holdsOf(plan: string, keys: RedisKeys): { key: string; units: number }[] {
  return plan.split('\t').flatMap((taken) => {
    const [, amount, name = ''] = /^(\d+) p \S+ \S+ \S+ (.*)$/.exec(taken) ?? []
    const key = keys.parseLimit(name)
    return key === undefined ? [] : [{ key, units: Number(amount) }]
  })
}

/** Pairs of remaining and reset at the end of a reply; texts may be Buffers. */
export function readStates(reply: readonly unknown[], from: number): LimitState[] {
  const states: LimitState[] = []
  for (let index = from; index + 1 < reply.length; index += 2) {
    states.push({ remaining: Number(String(reply[index])), resetAtMs: Number(String(reply[index + 1])) })
  }
  return states
}

/** By the limit and the prefix of its name: limits are the same objects in all calls that are alike. */
const described = new WeakMap<Limit, { readonly name: string; readonly text: string }>()

/** Kind, capacity, refill or end, parts of a unit, and name: a limit as a plan has it. */
export function describeLimit(limit: Limit, keys: RedisKeys): string {
  const name = keys.limit(limit.key)
  const known = described.get(limit)
  if (known?.name === name) return known.text
  const text = describe(limit, name)
  described.set(limit, { name, text })
  return text
}

function describe(limit: Limit, name: string): string {
  switch (limit.kind) {
    case 'bucket':
      return `b ${limit.capacity} ${limit.refill} ${partsOf(limit)} ${name}`
    case 'period':
      return `p ${limit.capacity} ${limit.endsAtMs} 0 ${name}`
    case 'concurrency':
      return `c ${limit.capacity} 0 0 ${name}`
  }
}
