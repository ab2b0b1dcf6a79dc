import { isObject } from '../is-object.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { eventOfFields, fieldsOf } from './event-codec.ts'
import { decodeJson, encodeJson, encodeLine } from './json-record.ts'
import type { Payload } from './segment-frames.ts'
import type { StoredRecord } from './segment-log.ts'

/** A call is over, or (with an empty id) something was corrected. All of it is there, or nothing. */
export interface SettledRecord {
  readonly id: string
  /** On their way to the ledger. */
  readonly events: readonly UsageEvent[]
  /** What the call's claim keeps. */
  readonly answer?: AnswerRecord | undefined
}

/** The same with the texts of its events, as `encodeFields` makes them. */
export interface WrittenRecord extends Omit<SettledRecord, 'events'> {
  readonly events: readonly string[]
}

export interface AnswerRecord {
  /** Of the claim. */
  readonly key: string
  readonly fingerprint: string
  /** Unix milliseconds until which it is kept. */
  readonly untilMs: number
  readonly bytes: Uint8Array
}

/** The record of a call that was admitted, as it stands in a segment: what is to be recorded if it is never settled. */
export function encodeAdmitted(id: string, event: UsageEvent): Payload {
  return encodeJson(['admitted', id, fieldsOf(event)])
}

/** A record as it stands in a segment; the bytes of an answer stand after the JSON. */
export function encodeSettled({ id, events, answer }: WrittenRecord): Payload {
  const head = `["settled",${JSON.stringify(id)},[${events.join(',')}]`
  if (answer === undefined) return encodeLine(`${head}]`)
  const { key, fingerprint, untilMs, bytes } = answer
  return encodeLine(`${head},${JSON.stringify({ key, fingerprint, untilMs })}]`, bytes)
}

type DecodedRecord =
  | { readonly type: 'admitted'; readonly id: string; readonly event: UsageEvent }
  | { readonly type: 'settled'; readonly record: SettledRecord }

/** The stored record, or undefined when the payload is not one. Keeps nothing of the payload's memory. */
function decodeRecord(payload: Buffer): DecodedRecord | undefined {
  const { value, bytes } = decodeJson(payload)
  if (!Array.isArray(value)) return undefined
  const [type, id, content, answer]: readonly unknown[] = value
  if (typeof id !== 'string') return undefined
  if (type === 'admitted') {
    const event = eventOfFields(content)
    return event === undefined ? undefined : { type, id, event }
  }
  if (type !== 'settled' || !Array.isArray(content)) return undefined
  const events = content.flatMap((fields) => eventOfFields(fields) ?? [])
  if (events.length < content.length) return undefined
  if (bytes === undefined) return { type, record: { id, events } }
  if (!isObject(answer)) return undefined
  const { key, fingerprint, untilMs } = answer
  if (typeof key !== 'string' || typeof fingerprint !== 'string' || typeof untilMs !== 'number') return undefined
  return { type, record: { id, events, answer: { key, fingerprint, untilMs, bytes } } }
}

/** What records say together. */
export interface Replay {
  /** What to record of the calls that were in flight, by id. */
  readonly open: ReadonlyMap<string, UsageEvent>
  readonly settled: readonly (SettledRecord & { readonly sequence: number })[]
  /** Numbers of the records that cannot be understood. */
  readonly unreadable: readonly number[]
}

/** Reads records from the oldest on. */
export function replayRecords(records: Iterable<StoredRecord>): Replay {
  const open = new Map<string, UsageEvent>()
  const settled: (SettledRecord & { sequence: number })[] = []
  const unreadable: number[] = []
  for (const { sequence, payload } of records) {
    const decoded = decodeRecord(payload)
    if (decoded === undefined) unreadable.push(sequence)
    else if (decoded.type === 'admitted') open.set(decoded.id, decoded.event)
    else {
      open.delete(decoded.record.id)
      settled.push({ ...decoded.record, sequence })
    }
  }
  return { open, settled, unreadable }
}
