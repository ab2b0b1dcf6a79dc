import { PassingMap } from '../passing-map.ts'
import type { Admission, Settled } from './limits.ts'

/** A call that was admitted and not settled. */
export interface OpenCall {
  readonly admission: Admission
  /** Unix milliseconds. */
  readonly leaseEndMs: number
  /** Number of its record; infinite before that is written. */
  sequence: number
  /** Until its record is written. */
  opening: Promise<void> | undefined
  /** Its settlement or abandonment, while that is being written. */
  closing: Promise<Settled> | undefined
  /** When it was recorded as abandoned; it is kept for a late settlement. */
  abandonedAtMs: number | undefined
}

/** How long a late settlement of an abandoned call is expected. */
const abandonedKeepMs = 86_400_000

/** The open calls of one process, by id. */
export class LocalCalls extends PassingMap<string, OpenCall> {
  /** Those whose lease ran out; forgets the ones that were abandoned long ago. */
  due(nowMs: number): OpenCall[] {
    const due: OpenCall[] = []
    for (const [id, call] of this) {
      if (call.abandonedAtMs !== undefined) {
        if (nowMs - call.abandonedAtMs > abandonedKeepMs) this.delete(id)
      } else if (call.closing === undefined && call.leaseEndMs <= nowMs) {
        due.push(call)
      }
    }
    return due
  }

  /** Number of the oldest record that is needed: if this process dies, it says what to record. */
  oldestSequence(): number {
    let oldest = Number.POSITIVE_INFINITY
    for (const { sequence, abandonedAtMs } of this.values()) {
      if (abandonedAtMs === undefined) oldest = Math.min(oldest, sequence)
    }
    return oldest
  }
}
