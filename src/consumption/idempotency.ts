/**
 * Idempotency keys. Of all calls of a consumer with the same key one is made; the others wait for it and get its answer.
 * The claim on a key is taken and the answer is kept in the same steps as admission and settlement, so that no crash can
 * come between (see `limits.ts`); what is in a claim and in a kept answer is decided here.
 */

import { createHash, hash } from 'node:crypto'
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { isObject } from '../is-object.ts'
import { asEvent } from '../limits/event-codec.ts'
import type { Claim } from '../limits/limits.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { Charge, ChargeComponent } from '../pricing/price.ts'
import type { Mode } from '../providers/provider.ts'
import type { GateRequest } from './gate.ts'

/** Longest key, in characters. */
const keyMaxLength = 255

/** Largest body that is kept. A call with a larger one is not made again either: its repetition is told so. */
export const answerMaxBytes = 1_048_576

/** The key that a call names, in the field or in the header; empty when it names none. Throws INVALID_ARGUMENT. */
export function idempotencyKeyOf(field: string, call: Call): string {
  const header = call.header('idempotency-key') ?? ''
  if (header.length > keyMaxLength) throw invalidKey(`must have at most ${keyMaxLength} characters`)
  if (field !== '' && header !== '' && field !== header) throw invalidKey('differs from the header idempotency-key')
  return field === '' ? header : field
}

/** The claim of a consumer's call; a repetition must ask the same service for the same, byte for byte. */
export function claimOf(request: GateRequest, mode: Mode, consumerId: string, serviceId: string): Claim {
  const { idempotencyKey, dialect, kind = '', payload } = request
  const asked = [serviceId, mode, dialect, kind, ''].join('\n')
  return {
    key: `${consumerId}:${hash('sha256', idempotencyKey, 'base64url')}`,
    fingerprint: createHash('sha256').update(asked).update(payload).digest('base64url'),
  }
}

/** An answer as it is kept for repetitions. */
export interface KeptAnswer {
  readonly event: UsageEvent
  readonly charge: Charge
  readonly serviceVersion: string
  readonly finishReason: string
  /** The whole answer, or all events of a stream. */
  readonly body: Uint8Array
}

/**
 * A line of JSON with everything but the body, then the body; without the body when that is too large to keep, or is
 * undefined because it was.
 */
export function encodeAnswer(answer: Omit<KeptAnswer, 'body'> & { readonly body: Uint8Array | undefined }): Uint8Array {
  const { charge, body, ...head } = answer
  const isKept = body !== undefined && body.length <= answerMaxBytes
  const line = JSON.stringify({ ...head, components: charge.components, isKept })
  return Buffer.concat([Buffer.from(`${line}\n`), isKept ? body : new Uint8Array()])
}

/** Throws IDEMPOTENT_ANSWER_NOT_KEPT when the body was too large. */
export function decodeAnswer(bytes: Uint8Array): KeptAnswer {
  const end = bytes.indexOf(0x0a)
  const head = asHead(JSON.parse(Buffer.from(bytes.subarray(0, end)).toString('utf8')))
  if (head === undefined) {
    throw new TollgateError('INTERNAL', 'The kept answer of this idempotency key cannot be read.')
  }
  const { components, isKept, ...known } = head
  const { event } = known
  if (!isKept) throw notKept(event)
  const charge = { nanos: event.costNanos, currency: event.currency, priceVersion: event.priceVersion, components }
  return { ...known, charge, body: bytes.subarray(end + 1) }
}

interface Head extends Omit<KeptAnswer, 'charge' | 'body'> {
  readonly components: readonly ChargeComponent[]
  readonly isKept: boolean
}

function asHead(value: unknown): Head | undefined {
  if (!isObject(value)) return undefined
  const { components, serviceVersion, finishReason, isKept } = value
  const event = asEvent(value.event)
  if (event === undefined || typeof serviceVersion !== 'string' || typeof isKept !== 'boolean') return undefined
  if (typeof finishReason !== 'string') return undefined
  if (!Array.isArray(components) || !components.every(isComponent)) return undefined
  return { event, components, serviceVersion, finishReason, isKept }
}

function isComponent(value: unknown): value is ChargeComponent {
  if (!isObject(value) || typeof value.kind !== 'string') return false
  return [value.quantity, value.rateNanos, value.nanos].every((figure) => typeof figure === 'number')
}

/** A repetition with another service or payload. */
export function keyReused(): TollgateError {
  const description = 'was used for a call with another service or payload: take a new key'
  return new TollgateError('IDEMPOTENCY_KEY_REUSED', `idempotency_key ${description}`, {
    fields: [{ field: 'idempotency_key', description }],
  })
}

function notKept(event: UsageEvent): TollgateError {
  return new TollgateError(
    'IDEMPOTENT_ANSWER_NOT_KEPT',
    `The call with this idempotency key was made and answered as ${event.requestId}; its answer was larger than ${answerMaxBytes} bytes and was not kept. It is not made again: use a new key to call anew.`,
    { metadata: { requestId: event.requestId, limitBytes: String(answerMaxBytes) } },
  )
}

function invalidKey(description: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `idempotency_key ${description}`, {
    fields: [{ field: 'idempotency_key', description }],
    metadata: { field: 'idempotency_key' },
  })
}
