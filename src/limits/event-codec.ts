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

/** The fields of an event by their places, without their names: half the bytes, and half the time to write and read. */
export type EventFields = readonly [
  id: string,
  requestId: string,
  organizationId: string,
  consumerId: string,
  serviceId: string,
  endpointId: string,
  keyId: string,
  startMs: number,
  requests: number,
  corrects: string,
  durationMs: number,
  firstTokenMs: number,
  status: CallStatus,
  errorReason: string,
  tokens: readonly [
    input: number,
    cachedInput: number,
    cacheWriteInput: number,
    output: number,
    reasoningOutput: number,
  ],
  usageSource: UsageSource,
  costNanos: number,
  currency: string,
  priceVersion: string,
  model: string,
  attempt: number,
  metadata: Readonly<Record<string, string>>,
  traceparent: string,
]

/** An event as the log of one process has it: JSON of its fields. */
export function encodeFields(event: UsageEvent): string {
  return JSON.stringify(fieldsOf(event))
}

/** The event in a text that this process made with {@link encodeFields}. */
export function decodeFields(json: string): UsageEvent {
  return eventOf(JSON.parse(json))
}

/** The events in a list of such texts, which this process made. */
export function decodeList(json: string): UsageEvent[] {
  const list: readonly EventFields[] = JSON.parse(json)
  return list.map(eventOf)
}

/** What JSON is to be made of. */
export function fieldsOf(event: UsageEvent): EventFields {
  const { tokens } = event
  return [
    event.id,
    event.requestId,
    event.organizationId,
    event.consumerId,
    event.serviceId,
    event.endpointId,
    event.keyId,
    event.startMs,
    event.requests,
    event.corrects,
    event.durationMs,
    event.firstTokenMs,
    event.status,
    event.errorReason,
    [tokens.input, tokens.cachedInput, tokens.cacheWriteInput, tokens.output, tokens.reasoningOutput],
    event.usageSource,
    event.costNanos,
    event.currency,
    event.priceVersion,
    event.model,
    event.attempt,
    event.metadata,
    event.traceparent,
  ]
}

/** What {@link fieldsOf} was given. */
function eventOf(fields: EventFields): UsageEvent {
  const [input, cachedInput, cacheWriteInput, output, reasoningOutput] = fields[14]
  return {
    id: fields[0],
    requestId: fields[1],
    organizationId: fields[2],
    consumerId: fields[3],
    serviceId: fields[4],
    endpointId: fields[5],
    keyId: fields[6],
    startMs: fields[7],
    requests: fields[8],
    corrects: fields[9],
    durationMs: fields[10],
    firstTokenMs: fields[11],
    status: fields[12],
    errorReason: fields[13],
    tokens: { input, cachedInput, cacheWriteInput, output, reasoningOutput },
    usageSource: fields[15],
    costNanos: fields[16],
    currency: fields[17],
    priceVersion: fields[18],
    model: fields[19],
    attempt: fields[20],
    metadata: fields[21],
    traceparent: fields[22],
  }
}

/** The event in a parsed value, or undefined when a field is missing or of another type. */
export function eventOfFields(value: unknown): UsageEvent | undefined {
  return isFields(value) ? asEvent(eventOf(value)) : undefined
}

/** Whether there are places enough; what stands in them, {@link asEvent} looks at. */
function isFields(value: unknown): value is EventFields {
  return Array.isArray(value) && Array.isArray(value[14])
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
