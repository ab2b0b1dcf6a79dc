import type { UsageEvent } from '../metering/usage-event.ts'
import { asEvent } from './event-codec.ts'
import type { LimitCost } from './limits.ts'

/** What the local usage log stores: that a call was admitted, and what it used. */
export type LocalRecord =
  /** A reservation was opened; `event` is what to record if it is never settled. */
  | {
      readonly type: 'admitted'
      readonly id: string
      readonly periods: readonly PeriodUse[]
      readonly event: UsageEvent
    }
  /** A reservation was settled or abandoned; `event` is on its way to the ledger. */
  | {
      readonly type: 'settled'
      readonly id: string
      readonly periods: readonly PeriodUse[]
      readonly event: UsageEvent
    }

/** Key of a period limit within the organization of the event, and the units taken from it. */
export type PeriodUse = readonly [key: string, units: number]

export function encodeRecord(record: LocalRecord): string {
  return JSON.stringify(record)
}

/** The stored record, or undefined when the payload is not one. */
export function decodeRecord(payload: string): LocalRecord | undefined {
  let value: unknown
  try {
    value = JSON.parse(payload)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  if (!('type' in value && 'id' in value && 'periods' in value && 'event' in value)) return undefined
  const { type, id, periods } = value
  const event = asEvent(value.event)
  if ((type !== 'admitted' && type !== 'settled') || typeof id !== 'string' || event === undefined) return undefined
  return Array.isArray(periods) && periods.every(isPeriodUse) ? { type, id, periods, event } : undefined
}

/** What an admission or settlement takes from period limits; `units` default to the reserved ones. */
export function periodUses(costs: readonly LimitCost[], units: readonly number[] = []): PeriodUse[] {
  return costs.flatMap(({ limit, amount }, index): PeriodUse[] =>
    limit.kind === 'period' ? [[limit.key, units[index] ?? amount]] : [],
  )
}

function isPeriodUse(value: unknown): value is PeriodUse {
  return Array.isArray(value) && value.length === 2 && typeof value[0] === 'string' && typeof value[1] === 'number'
}
