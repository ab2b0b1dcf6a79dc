import { isObject } from '../is-object.ts'
import { asEvent } from './event-codec.ts'
import { decodeJson, encodeJson } from './json-record.ts'
import type { Admission, Claim, Limit, LimitCost, Settlement } from './limits.ts'
import type { Payload } from './segment-frames.ts'

/** A settlement as it stands in a segment; the bytes of its answer stand after the JSON. */
export function encodeSettlement({ answer, ...rest }: Settlement): Payload {
  return encodeJson(rest, answer)
}

/** The stored settlement, or undefined when the payload is not one. Keeps nothing of the payload's memory. */
export function decodeSettlement(payload: Buffer): Settlement | undefined {
  const { value, bytes } = decodeJson(payload)
  if (!isObject(value)) return undefined
  const { actual } = value
  const admission = asAdmission(value.admission)
  const event = asEvent(value.event)
  if (admission === undefined || event === undefined || !isNumbers(actual)) return undefined
  return { admission, actual, event, ...(bytes === undefined ? {} : { answer: bytes }) }
}

function asAdmission(value: unknown): Admission | undefined {
  if (!isObject(value)) return undefined
  const { id, leaseMs, costs, claim } = value
  const ifAbandoned = asEvent(value.ifAbandoned)
  if (typeof id !== 'string' || typeof leaseMs !== 'number' || ifAbandoned === undefined) return undefined
  if (!Array.isArray(costs) || !costs.every(isCost)) return undefined
  const admission = { id, leaseMs, costs, ifAbandoned }
  if (claim === undefined) return admission
  return isClaim(claim) ? { ...admission, claim } : undefined
}

function isCost(value: unknown): value is LimitCost {
  return isObject(value) && typeof value.amount === 'number' && isLimit(value.limit)
}

function isLimit(value: unknown): value is Limit {
  if (!isObject(value) || typeof value.capacity !== 'number') return false
  if (!['name', 'unit', 'subject', 'serviceId', 'key'].every((name) => typeof value[name] === 'string')) return false
  switch (value.kind) {
    case 'bucket':
      return typeof value.refill === 'number' && (value.windowMs === 1_000 || value.windowMs === 60_000)
    case 'period':
      return typeof value.endsAtMs === 'number' && typeof value.currency === 'string' && isScope(value.scope)
    default:
      return value.kind === 'concurrency'
  }
}

function isScope(value: unknown): boolean {
  if (!isObject(value) || typeof value.kind !== 'string' || typeof value.id !== 'string') return false
  return value.serviceId === undefined || typeof value.serviceId === 'string'
}

function isClaim(value: unknown): value is Claim {
  return isObject(value) && typeof value.key === 'string' && typeof value.fingerprint === 'string'
}

function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'number')
}
