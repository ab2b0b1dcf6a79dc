import { setTimeout as delay } from 'node:timers/promises'
import { TollgateError } from '../errors.ts'
import type { FakeLedger } from './conformance-support.ts'
import type { Admission, Correction, Limit, Limits, Settlement, UsageLog } from './limits.ts'

/** A store of limits that tests take away and bring back. Everything it does while it is there, the real one does. */
export class Reachable implements Limits {
  /** `lost`: what is asked is done, and its answer never comes. */
  state: 'here' | 'away' | 'lost' = 'here'
  /** Commands that came while it was not here, without looks at its health. */
  missed = 0
  /** Commands that it answered. */
  answered = 0
  readonly usageLog: UsageLog
  readonly #store: Limits

  constructor(store: Limits) {
    this.#store = store
    this.usageLog = store.usageLog
  }

  admit(admission: Admission) {
    return this.#reach(() => this.#store.admit(admission))
  }

  settle(settlement: Settlement) {
    return this.#reach(() => this.#store.settle(settlement))
  }

  correct(correction: Correction) {
    return this.#reach(() => this.#store.correct(correction))
  }

  read(limits: readonly Limit[]) {
    return this.#reach(() => this.#store.read(limits))
  }

  async health() {
    return this.state === 'here' ? this.#store.health() : { ok: false, detail: 'away' }
  }

  async close(): Promise<void> {}

  async #reach<T>(command: () => Promise<T>): Promise<T> {
    if (this.state === 'here') {
      this.answered += 1
      return command()
    }
    this.missed += 1
    const metadata = { unreachable: 'redis' }
    if (this.state === 'away') {
      const cause = new Error("Stream isn't writeable and enableOfflineQueue options is false")
      throw new TollgateError('LIMITS_UNAVAILABLE', 'away', { metadata, cause })
    }
    await command()
    throw new TollgateError('LIMITS_UNAVAILABLE', 'away', { metadata, cause: new Error('Command timed out') })
  }
}

/** Carries a usage log to the ledger, and sweeps it, until it is stopped. */
export function startDrain(log: UsageLog, ledger: Pick<FakeLedger, 'take'>): { stop(): Promise<void> } {
  const stopping = new AbortController()
  async function loop(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await log.sweep()
        const batch = await log.read(100, 200, stopping.signal)
        ledger.take(batch.events())
        if (batch.size > 0) await batch.acknowledge()
      } catch {
        await delay(20)
      }
    }
  }
  const looping = loop()
  return {
    async stop() {
      stopping.abort()
      await looping
    },
  }
}
