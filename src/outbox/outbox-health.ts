import { describeError } from '../storage/postgres.ts'
import { within } from '../within.ts'
import type { Outbox, SinkState } from './outbox.ts'

/** An event that is older than this should have arrived. */
const stuckAfterSeconds = 60
const answerTimeoutMs = 2_000

/** Whether domain events arrive everywhere; degraded: changes wait, or are dead letters. Never rejects. */
export async function outboxHealth(
  outbox: Pick<Outbox, 'names' | 'status'>,
): Promise<{ status: 'ok' | 'degraded'; detail: string }> {
  if (outbox.names.length === 0) return { status: 'ok', detail: 'no sinks are configured' }
  try {
    const sinks = await within(answerTimeoutMs, outbox.status())
    const isStuck = sinks.some(
      ({ failing, lagSeconds, deadLetters }) =>
        failing !== undefined || lagSeconds > stuckAfterSeconds || deadLetters > 0,
    )
    return { status: isStuck ? 'degraded' : 'ok', detail: sinks.map(detailOf).join('; ') }
  } catch (error) {
    return { status: 'degraded', detail: describeError(error) }
  }
}

function detailOf({ name, behind, waiting, deadLetters, lagSeconds, failing }: SinkState): string {
  const parts = [`${behind + waiting} to be delivered`]
  if (lagSeconds > stuckAfterSeconds) parts.push(`the oldest for ${Math.round(lagSeconds)} s`)
  if (deadLetters > 0) parts.push(`${deadLetters} dead letters`)
  if (failing !== undefined) parts.push(failing)
  return `${name}: ${parts.join(', ')}`
}
