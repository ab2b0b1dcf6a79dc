import type { UsageEvent } from '../metering/usage-event.ts'
import { partsOf } from './buckets.ts'
import { periodKeysOf } from './limit-keys.ts'
import type { Limit, LimitCost, LimitState } from './limits.ts'
import type { RedisKeys } from './redis-keys.ts'
import { asArray } from './redis-scripts.ts'

/** What the ledger said of a period that a script did not know. */
export interface KnownSeed {
  readonly used: number
  /** The version that it was asked at. */
  readonly version: string
}

/** A limit as `read_limits` of buckets.lua takes it. */
export function limitArguments(limit: Limit, seed?: KnownSeed): [string, string, string, string] {
  const [kind, capacity, rateOrEnd, parts] = describe(limit)
  return [kind, capacity, rateOrEnd, seed === undefined ? parts : `${seed.used} ${seed.version}`]
}

/** What a reservation takes, as `read_plan` of buckets.lua reads it. */
export function encodePlan(costs: readonly LimitCost[], keys: RedisKeys): string {
  const plan = costs.map(({ limit, amount }) => {
    const [kind, ...rest] = describe(limit)
    return [kind, keys.limit(limit.key), ...rest, String(amount)]
  })
  return JSON.stringify(plan)
}

/** Names of the period counters that an event moves beside those that its reservation holds. */
export function otherCounters(event: UsageEvent, held: readonly string[], keys: RedisKeys): string[] {
  return periodKeysOf(event).flatMap((key) => (held.includes(key) ? [] : [keys.limit(key)]))
}

/** What a plan holds of period counters, by their keys. */
export function holdsOf(plan: string, keys: RedisKeys): { key: string; units: number }[] {
  return asArray(JSON.parse(plan)).flatMap((taken) => {
    const [kind, name, , , , amount] = asArray(taken)
    const key = kind === 'p' && typeof name === 'string' ? keys.parseLimit(name) : undefined
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

/** Kind, capacity, refill or end, and parts of a unit. */
function describe(limit: Limit): [string, string, string, string] {
  const capacity = String(limit.capacity)
  switch (limit.kind) {
    case 'bucket':
      return ['b', capacity, String(limit.refill), String(partsOf(limit))]
    case 'period':
      return ['p', capacity, String(limit.endsAtMs), '']
    case 'concurrency':
      return ['c', capacity, '', '']
  }
}
