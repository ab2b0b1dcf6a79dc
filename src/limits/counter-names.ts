import type { UsageEvent } from '../metering/usage-event.ts'
import { periodKeysOf } from './limit-keys.ts'
import type { RedisKeys } from './redis-keys.ts'

/**
 * Names in Redis of every period counter that an event moves, with a tab between two, as settle.lua takes them. Made once
 * for as long as their keys are remembered.
 */
export class CounterNames {
  readonly #keys: RedisKeys
  readonly #names = new WeakMap<readonly string[], string>()

  constructor(keys: RedisKeys) {
    this.#keys = keys
  }

  of(event: UsageEvent): string {
    const counters = periodKeysOf(event)
    let names = this.#names.get(counters)
    if (names === undefined) {
      names = counters.map((key) => this.#keys.limit(key)).join('\t')
      this.#names.set(counters, names)
    }
    return names
  }
}
