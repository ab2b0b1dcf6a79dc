import type { UsageEvent } from '../metering/usage-event.ts'
import { counterKeysOf, monthOf } from './limit-keys.ts'
import type { RedisKeys } from './redis-keys.ts'

/** Beyond it all are forgotten and made again. About 3 KB each. */
const maxKept = 1_000

/**
 * Names in Redis of every period counter that an event moves, with a tab between two, as settle.lua takes them. Made once
 * for all calls of the same subjects, service and month: a call has about a dozen, and making them costs it 5 µs.
 */
export class CounterNames {
  readonly #keys: RedisKeys
  readonly #kept = new Map<string, string>()

  constructor(keys: RedisKeys) {
    this.#keys = keys
  }

  of(event: UsageEvent): string {
    const { organizationId, consumerId, keyId, serviceId, currency } = event
    const month = monthOf(event.startMs)
    const subjects = `${organizationId}\t${consumerId}\t${keyId}\t${serviceId}\t${month}\t${currency}`
    let names = this.#kept.get(subjects)
    if (names === undefined) {
      const { tokens, cost } = counterKeysOf({ organizationId, consumerId, keyId, serviceId, currency, month })
      names = [...tokens, ...cost].map((key) => this.#keys.limit(key)).join('\t')
      if (this.#kept.size >= maxKept) this.#kept.clear()
      this.#kept.set(subjects, names)
    }
    return names
  }
}
