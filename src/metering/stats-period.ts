import { TollgateError } from '../errors.ts'

/** From `fromMs`, inclusive, to `toMs`, exclusive; Unix milliseconds. */
export interface Period {
  readonly fromMs: number
  readonly toMs: number
}

export interface PeriodRequest {
  /** 0: not stated. */
  readonly days: number
  readonly startMs: number | undefined
  readonly endMs: number | undefined
}

/**
 * The period that a request means: the last `days` (30 when nothing is stated) times 24 hours until `nowMs`; or from
 * start to end, with now and 30 days before the end in place of a missing one. Throws INVALID_ARGUMENT for days beside a
 * start or an end, and for a period that is empty, longer than 366 days, or outside the years 1970 to 9999.
 */
export function periodOf({ days, startMs, endMs }: PeriodRequest, nowMs: number): Period {
  if (startMs === undefined && endMs === undefined) {
    return { fromMs: nowMs - (days === 0 ? defaultDays : days) * dayMs, toMs: nowMs }
  }
  if (days !== 0) throw refusal('days', 'must be 0 beside start_time or end_time')
  const toMs = endMs ?? nowMs
  const fromMs = startMs ?? toMs - defaultDays * dayMs
  if (fromMs < 0) throw refusal('start_time', 'must not be before 1970')
  if (toMs > latestMs) throw refusal('end_time', 'must not be after 9999')
  if (fromMs >= toMs) throw refusal('start_time', 'must be before end_time, which is now when it is not stated')
  if (toMs - fromMs > longestDays * dayMs) {
    throw refusal('start_time', `must be at most ${longestDays} days before end_time`)
  }
  return { fromMs, toMs }
}

/**
 * A period as whole hours with the parts of hours before and after them: the three follow each other without a gap, and
 * any may be empty. Within one hour all of it is the head.
 */
export function splitPeriod({ fromMs, toMs }: Period): { head: Period; wholeHours: Period; tail: Period } {
  const first = Math.min(ceilHour(fromMs), toMs)
  const last = Math.max(floorHour(toMs), first)
  return {
    head: { fromMs, toMs: first },
    wholeHours: { fromMs: first, toMs: last },
    tail: { fromMs: last, toMs },
  }
}

/**
 * A period without those parts of hours at its ends that lie before `droppedBeforeMs` (the start of a month): of that
 * time only sums of whole hours are left. It may become empty, and never negative.
 */
export function keptPeriod({ fromMs, toMs }: Period, droppedBeforeMs: number): Period {
  const start = fromMs < droppedBeforeMs ? ceilHour(fromMs) : fromMs
  return { fromMs: start, toMs: Math.max(start, toMs < droppedBeforeMs ? floorHour(toMs) : toMs) }
}

const defaultDays = 30
const longestDays = 366
const hourMs = 3_600_000
const dayMs = 24 * hourMs
const latestMs = Date.UTC(10_000, 0, 1) - 1

function ceilHour(ms: number): number {
  return Math.ceil(ms / hourMs) * hourMs
}

function floorHour(ms: number): number {
  return Math.floor(ms / hourMs) * hourMs
}

function refusal(field: string, description: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `${field} ${description}.`, { fields: [{ field, description }] })
}
