import { isObject } from '../is-object.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { asEvent } from './event-codec.ts'
import { decodeJson, encodeJson } from './json-record.ts'
import type { StoredRecord } from './segment-log.ts'

/** What the log of one process stores. */
export type LocalRecord = AdmittedRecord | SettledRecord

/** A call was admitted; `event` is what to record if it is never settled. */
export interface AdmittedRecord {
  readonly type: 'admitted'
  readonly id: string
  readonly event: UsageEvent
}

/** A call is over, or (with an empty id) something was corrected. All of it is there, or nothing. */
export interface SettledRecord {
  readonly type: 'settled'
  readonly id: string
  /** On their way to the ledger. */
  readonly events: readonly UsageEvent[]
  /** What the call's claim keeps. */
  readonly answer?: AnswerRecord | undefined
}

export interface AnswerRecord {
  /** Of the claim. */
  readonly key: string
  readonly fingerprint: string
  /** Unix milliseconds until which it is kept. */
  readonly untilMs: number
  readonly bytes: Uint8Array
}

/** A record as it stands in a segment; the bytes of an answer stand after the JSON. */
export function encodeRecord(record: LocalRecord): Buffer {
  if (record.type === 'admitted' || record.answer === undefined) return encodeJson(record)
  const { bytes, ...answer } = record.answer
  return encodeJson({ ...record, answer }, bytes)
}

/** The stored record, or undefined when the payload is not one. Keeps nothing of the payload's memory. */
function decodeRecord(payload: Buffer): LocalRecord | undefined {
  const { value, bytes } = decodeJson(payload)
  if (value === undefined) return undefined
  const { type, id } = value
  if (typeof id !== 'string') return undefined
  if (type === 'admitted') {
    const event = asEvent(value.event)
    return event === undefined ? undefined : { type, id, event }
  }
  if (type !== 'settled' || !Array.isArray(value.events)) return undefined
  const events = value.events.flatMap((event) => asEvent(event) ?? [])
  if (events.length < value.events.length) return undefined
  if (bytes === undefined) return { type, id, events }
  if (!isObject(value.answer)) return undefined
  const { key, fingerprint, untilMs } = value.answer
  if (typeof key !== 'string' || typeof fingerprint !== 'string' || typeof untilMs !== 'number') return undefined
  return { type, id, events, answer: { key, fingerprint, untilMs, bytes } }
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
    const record = decodeRecord(payload)
    if (record === undefined) unreadable.push(sequence)
    else if (record.type === 'admitted') open.set(record.id, record.event)
    else {
      open.delete(record.id)
      settled.push({ ...record, sequence })
    }
  }
  return { open, settled, unreadable }
}
