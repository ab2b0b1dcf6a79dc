import { TollgateError } from '../errors.ts'
import { encodeEvent } from './event-codec.ts'
import type { Admission } from './limits.ts'
import type { RedisKeys } from './redis-keys.ts'
import type { ScriptArgument } from './redis-scripts.ts'
import type { Slice, SliceMove } from './slice.ts'

/** A call that was taken from slices of a holding. */
export interface SpentCall {
  readonly admission: Admission
  /** In the order of its costs. */
  readonly slices: readonly Slice[]
  readonly holder: string
}

/** Calls that are said to Redis in one run: others wait for it, and it is what may be lost at most (docs/limits.md). */
const maxCalls = 64

/** Calls of one holding that share a run. */
export class SliceBatch {
  readonly holder: string
  readonly calls: SpentCall[] = []
  #isGone = false
  readonly #gone = Promise.withResolvers<boolean>()

  constructor(holder: string) {
    this.holder = holder
  }

  /** True: the calls are admitted. False: Redis must be asked. Rejects where nobody knows what Redis has of them. */
  get written(): Promise<boolean> {
    return this.#gone.promise
  }

  get isFull(): boolean {
    return this.calls.length >= maxCalls
  }

  /** Whether the calls were let go. */
  get isGone(): boolean {
    return this.#isGone
  }

  /** The calls are on their way. */
  go(): void {
    this.#isGone = true
    this.#gone.resolve(true)
  }

  /** They may be on their way, and do not go on. */
  fail(): void {
    this.#gone.reject(new TollgateError('LIMITS_UNAVAILABLE', 'limits cannot be checked at the moment'))
  }

  /** The calls are not sent. Their units are there again, unless the holding was given up, where they are still counted. */
  takeBack(isHolding: boolean): void {
    for (const { admission, slices } of isHolding ? this.calls : []) {
      slices.forEach((slice, index) => {
        slice.spend(-(admission.costs[index]?.amount ?? 0))
      })
    }
    this.#gone.resolve(false)
  }
}

/** What one run of slices.lua does. */
export interface SliceRun {
  readonly holder: string
  /** Redis does not know the holding yet. */
  readonly begins: boolean
  readonly calls: readonly SpentCall[]
  readonly moves: readonly (readonly [slice: Slice, move: SliceMove])[]
}

/** Arguments of slices.lua after the generation. */
export function sliceArguments(
  { holder, begins, calls, moves }: SliceRun,
  keys: RedisKeys,
  { leaseMs, percent }: { readonly leaseMs: number; readonly percent: number },
): ScriptArgument[] {
  const spent = new Map<string, number>()
  const facts: ScriptArgument[] = []
  const ids = new Set<string>()
  for (const { admission, slices } of calls) {
    const { id, costs, leaseMs, ifAbandoned } = admission
    // A call that came twice at once takes once.
    if (ids.has(id)) continue
    ids.add(id)
    let plan = ''
    slices.forEach(({ text }, index) => {
      const amount = costs[index]?.amount ?? 0
      spent.set(text, (spent.get(text) ?? 0) + amount)
      plan += `${index === 0 ? '' : '\t'}${amount} ${text}`
    })
    facts.push(id, String(leaseMs), `o${plan}\n${encodeEvent(ifAbandoned)}`)
  }
  const args: ScriptArgument[] = [keys.reservations(), holder, String(leaseMs), String(percent), keys.holding('')]
  args.push(begins ? '1' : '', String(spent.size + moves.length))
  for (const [text, units] of spent) args.push(text, String(units), '0', '0', '0')
  for (const [{ text }, { back, wanted, least }] of moves) {
    args.push(text, '0', String(back), String(wanted), String(least))
  }
  return [...args, ...facts]
}
