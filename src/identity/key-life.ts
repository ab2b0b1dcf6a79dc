/**
 * The life of a key. It is **active** from the start, and then **expired** or **revoked** for ever:
 *
 *     active ── its time is over ──▶ expired
 *        └───── somebody ends it ──▶ revoked
 *
 * A **rotation** gives an active key a successor, once, and an end: now, or after an overlap in which both are active.
 * A key that was **made with** another key ends when that one does: it expires no later, and is revoked with it. What was
 * made with a key that is rotated goes over to its successor.
 */
import { TollgateError } from '../errors.ts'

export type KeyState = 'active' | 'expired' | 'revoked'

export interface KeyLife {
  readonly id: string
  /** Unix milliseconds; undefined means never. */
  readonly expiresAtMs: number | undefined
  /** Unix milliseconds; undefined while nobody ended it. */
  readonly revokedAtMs: number | undefined
  /** Id of the key in its place; undefined for none. */
  readonly successor: string | undefined
}

export function stateOf(life: Pick<KeyLife, 'expiresAtMs' | 'revokedAtMs'>, nowMs: number): KeyState {
  if (life.revokedAtMs !== undefined) return 'revoked'
  return life.expiresAtMs !== undefined && life.expiresAtMs <= nowMs ? 'expired' : 'active'
}

/** Throws KEY_INACTIVE unless the key is active. */
export function requireActive(life: KeyLife, nowMs: number): void {
  const state = stateOf(life, nowMs)
  if (state === 'active') return
  throw new TollgateError('KEY_INACTIVE', `Key ${life.id} is ${state} for good. Create a new one.`, {
    metadata: { keyId: life.id, state },
  })
}

/** When a key expires that is rotated now; throws KEY_INACTIVE when it is not active, or has a successor already. */
export function endOfRotated(life: KeyLife, overlapMs: number, nowMs: number): number {
  requireActive(life, nowMs)
  if (life.successor !== undefined) {
    const message = `Key ${life.id} was rotated before: key ${life.successor} has taken its place. Rotate that one.`
    throw new TollgateError('KEY_INACTIVE', message, {
      metadata: { keyId: life.id, state: 'rotated', successor: life.successor },
    })
  }
  return Math.min(nowMs + overlapMs, life.expiresAtMs ?? Number.POSITIVE_INFINITY)
}

/**
 * When a key expires, of which `askedMs` is asked: with nothing asked, when the one that it depends on does. Throws
 * INVALID_ARGUMENT for a moment that has passed, and KEY_SCOPE_EXCEEDED for one after `ceilingMs`.
 *
 * @param field the request field that holds what is asked.
 * @param ceilingMs when the key that this one is made with, or made by, expires; undefined: never, or there is none.
 */
export function expiryOf(
  askedMs: number | undefined,
  ceilingMs: number | undefined,
  nowMs: number,
  field = 'expire_time',
): number | undefined {
  if (askedMs === undefined) return ceilingMs
  if (askedMs <= nowMs) {
    const description = 'must be in the future'
    throw new TollgateError('INVALID_ARGUMENT', `${field} ${description}`, {
      fields: [{ field, description, rule: 'future' }],
    })
  }
  if (ceilingMs === undefined || askedMs <= ceilingMs) return askedMs
  const latest = new Date(ceilingMs).toISOString()
  throw new TollgateError(
    'KEY_SCOPE_EXCEEDED',
    `${field} is after ${latest}, when the key that it depends on expires.`,
    {
      metadata: { scope: field, item: new Date(askedMs).toISOString(), latest },
    },
  )
}

/** The earlier of two ends; undefined is never. */
export function earlier(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? (one ?? other) : Math.min(one, other)
}
