import { isObject } from '../is-object.ts'
import type { CallStatus, TokenParts, UsageEvent, UsageSource } from '../metering/usage-event.ts'

/** One line of JSON: what the usage log stores. */
export function encodeEvent(event: UsageEvent): string {
  return JSON.stringify(event)
}

/** The event in a stored line, or undefined when it is not one. */
export function decodeEvent(json: string): UsageEvent | undefined {
  try {
    return asEvent(JSON.parse(json))
  } catch {
    return undefined
  }
}

/** The event in a parsed value, or undefined when a field is missing or of another type. */
export function asEvent(value: unknown): UsageEvent | undefined {
  return isEvent(value) ? value : undefined
}

const texts = [
  'id',
  'requestId',
  'organizationId',
  'consumerId',
  'serviceId',
  'endpointId',
  'keyId',
  'corrects',
  'errorReason',
  'currency',
  'priceVersion',
  'model',
  'traceparent',
] as const satisfies readonly (keyof UsageEvent)[]

const numbers = [
  'startMs',
  'requests',
  'durationMs',
  'firstTokenMs',
  'costNanos',
  'attempt',
] as const satisfies readonly (keyof UsageEvent)[]

const statuses: Readonly<Record<CallStatus, true>> = {
  succeeded: true,
  failed: true,
  deadline_exceeded: true,
  cancelled: true,
  abandoned: true,
}

const sources: Readonly<Record<UsageSource, true>> = {
  provider: true,
  partial: true,
  estimated: true,
  none: true,
  cache: true,
}

const parts: Readonly<Record<keyof TokenParts, true>> = {
  input: true,
  cachedInput: true,
  cacheWriteInput: true,
  output: true,
  reasoningOutput: true,
}

function isEvent(value: unknown): value is UsageEvent {
  if (!isObject(value)) return false
  const { status, usageSource, tokens, metadata } = value
  return (
    texts.every((name) => typeof value[name] === 'string') &&
    numbers.every((name) => typeof value[name] === 'number') &&
    typeof status === 'string' &&
    Object.hasOwn(statuses, status) &&
    typeof usageSource === 'string' &&
    Object.hasOwn(sources, usageSource) &&
    isObject(tokens) &&
    Object.keys(parts).every((part) => typeof tokens[part] === 'number') &&
    isObject(metadata) &&
    Object.values(metadata).every((entry) => typeof entry === 'string')
  )
}
