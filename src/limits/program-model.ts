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
  type Threshold,
} from './buckets.ts'
import type { Admission, AdmissionResult, Limit, LimitState, PeriodLimit } from './limits.ts'

/** A call of a random program, as far as it got. */
export interface ModelCall {
  readonly admission: Admission
  /** Index of the process that admitted it. */
  readonly by: number
  /** When its lease ends, in milliseconds of the program's clock. */
  leaseEndMs: number
  state: 'open' | 'abandoned' | 'settled'
  /** The store may know nothing of it any more, so that to repeat it is another call. */
  isForgotten: boolean
  /** What the ledger counts of it, in the order of the costs. */
  used: readonly number[]
}

type ModelClaim =
  | { readonly kind: 'running'; readonly id: string; readonly fingerprint: string }
  | { readonly kind: 'answered'; readonly fingerprint: string; readonly answer: Uint8Array }

export interface Crossing {
  readonly limit: PeriodLimit
  readonly used: number
  readonly threshold: Threshold
}

/**
 * What {@link Limits} promise, on the pure arithmetic: no store, no I/O, one clock that the program sets. Each method does
 * what the store's method of this name does, and answers what it must answer.
 */
export class ProgramModel {
  readonly calls: ModelCall[] = []
  readonly #slots = new Map<string, Slot>()
  readonly #claims = new Map<string, ModelClaim>()
  /** What the ledger has beside the calls, by the key of the period. */
  readonly #ledger: Map<string, number>
  nowMs: number

  constructor(nowMs: number, usedBefore: ReadonlyMap<string, number>) {
    this.nowMs = nowMs
    this.#ledger = new Map(usedBefore)
  }

  admit(admission: Admission, by: number): AdmissionResult {
    const { id, costs, claim } = admission
    if (this.calls.some((call) => call.admission.id === id)) {
      return { outcome: 'admitted', limits: this.read(costs.map((cost) => cost.limit)) }
    }
    const claimed = this.#claimed(admission)
    if (claimed !== undefined) return claimed
    this.#know(costs.map((cost) => cost.limit))
    const verdict = admit(this.#slots, costs, this.#nowMicros)
    if (verdict.kind === 'unseeded') throw new Error('every period is known here')
    if (verdict.kind === 'refused') {
      const { refusedBy, retryAfterMs, limits } = verdict
      return { outcome: 'refused', refusedBy, retryAfterMs, limits }
    }
    const leaseEndMs = this.nowMs + admission.leaseMs
    this.calls.unshift({ admission, by, leaseEndMs, state: 'open', isForgotten: false, used: costs.map(() => 0) })
    if (claim !== undefined) this.#claims.set(claim.key, { kind: 'running', id, fingerprint: claim.fingerprint })
    return { outcome: 'admitted', limits: verdict.limits }
  }

  /** Nobody heard whether the call was admitted: what it took is given back. */
  giveBack(id: string): void {
    const index = this.calls.findIndex((call) => call.admission.id === id)
    const [call] = index < 0 ? [] : this.calls.splice(index, 1)
    if (call === undefined) return
    release(this.#slots, call.admission.costs, this.#nowMicros)
    this.#freeClaim(call.admission)
  }

  settle(call: ModelCall, actual: readonly number[], answer: Uint8Array | undefined): Crossing[] {
    const { costs } = call.admission
    if (call.state === 'settled') return []
    const crossed: Crossing[] = []
    if (call.state === 'open') {
      for (const { index, ...told } of settle(this.#slots, costs, actual, this.#nowMicros)) {
        const limit = costs[index]?.limit
        if (limit?.kind === 'period') crossed.push({ limit, ...told })
      }
    } else {
      costs.forEach((cost, index) => {
        const { limit } = cost
        if (limit.kind === 'bucket') settle(this.#slots, [cost], [actual[index] ?? 0], this.#nowMicros)
        if (limit.kind === 'period') forget(this.#slots, limit.key, this.#nowMicros)
      })
    }
    this.#endClaim(call.admission, answer)
    call.state = 'settled'
    call.used = actual
    return crossed
  }

  /** So much more or less, by the keys of periods. */
  correct(changes: ReadonlyMap<string, number>): void {
    for (const [key, change] of changes) {
      this.#ledger.set(key, (this.#ledger.get(key) ?? 0) + change)
      forget(this.#slots, key, this.#nowMicros)
    }
  }

  /** Returns how many leases ended. */
  sweep(): number {
    const due = this.calls.filter((call) => call.state === 'open' && call.leaseEndMs <= this.nowMs)
    for (const call of due) {
      abandon(this.#slots, call.admission.costs, this.#nowMicros)
      this.#abandoned(call)
    }
    return due.length
  }

  read(limits: readonly Limit[]): LimitState[] {
    this.#know(limits)
    return states(this.#slots, limits, this.#nowMicros)
  }

  /** The store lost its data and has again what the processes know: buckets are full, and answers are gone. */
  loseStore(): void {
    this.#loseCounters()
    for (const [key, claim] of this.#claims) if (claim.kind === 'answered') this.#claims.delete(key)
    for (const call of this.calls) {
      if (call.state === 'settled') call.isForgotten = true
      if (call.state !== 'open') continue
      declare(this.#slots, call.admission.costs, this.#nowMicros)
      call.leaseEndMs = this.nowMs + call.admission.leaseMs
    }
  }

  /** The process died that is the store: its calls are recorded as abandoned, and nobody settles them any more. */
  loseProcess(): void {
    this.#loseCounters()
    for (const call of this.calls) {
      if (call.state === 'open') this.#abandoned(call)
      call.isForgotten = true
    }
  }

  /** Units that are used of a period, and those that open calls hold of it. */
  usage(key: string): { used: number; held: number } {
    let used = this.#ledger.get(key) ?? 0
    let held = 0
    for (const call of this.calls) {
      call.admission.costs.forEach(({ limit, amount }, index) => {
        if (limit.key !== key) return
        if (call.state === 'open') held += amount
        else used += call.used[index] ?? 0
      })
    }
    return { used, held }
  }

  get #nowMicros(): number {
    return this.nowMs * 1_000
  }

  #know(limits: readonly Limit[]): void {
    for (const limit of limits) {
      if (limit.kind !== 'period') continue
      seed(this.#slots, limit, Math.max(0, this.usage(limit.key).used), seedVersion(this.#slots, limit.key))
    }
  }

  #abandoned(call: ModelCall): void {
    call.state = 'abandoned'
    call.used = call.admission.costs.map((cost) => cost.amount)
    this.#freeClaim(call.admission)
  }

  /** Of the counters only what was told of thresholds is left. */
  #loseCounters(): void {
    const before = [...this.#slots]
    this.#slots.clear()
    for (const [key, slot] of before) if ('told80' in slot) remind(this.#slots, key, slot)
  }

  #claimed({ claim }: Admission): AdmissionResult | undefined {
    const kept = claim === undefined ? undefined : this.#claims.get(claim.key)
    if (kept === undefined) return undefined
    if (kept.fingerprint !== claim?.fingerprint) return { outcome: 'mismatch' }
    return kept.kind === 'running' ? { outcome: 'running' } : { outcome: 'answered', answer: kept.answer }
  }

  #endClaim({ id, claim }: Admission, answer: Uint8Array | undefined): void {
    if (claim === undefined) return
    const kept = this.#claims.get(claim.key)
    const isFree = kept === undefined || (kept.kind === 'running' && kept.id === id)
    if (!isFree) return
    if (answer === undefined) this.#claims.delete(claim.key)
    else this.#claims.set(claim.key, { kind: 'answered', fingerprint: claim.fingerprint, answer })
  }

  #freeClaim(admission: Admission): void {
    this.#endClaim(admission, undefined)
  }
}
