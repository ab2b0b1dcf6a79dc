/**
 * Most events of a stream differ from the one before only in the few letters of one JSON string. Once such an event was
 * parsed, the bytes before and after that string are a template: an event that has the same bytes around another plain
 * string has the same meaning but for that string, and is whole and valid JSON, so that parsing it would tell nothing new.
 * Anything else (an escape, a control character, bytes that are no UTF-8, one other byte anywhere) does not match, and is
 * parsed.
 */
import { isUtf8 } from 'node:buffer'

/** An event of a text's deltas, by its bytes. */
export interface Template {
  readonly prefix: Buffer
  /** From the closing quote on, to the end of the event. */
  readonly suffix: Buffer
  /** The suffix, and the prefix of the next event: what stands between the strings of two. */
  readonly between: Buffer
  readonly of: 'text' | 'reasoning'
}

/** Events beyond this are parsed each time. */
const maxTemplateBytes = 4096

/**
 * The template of an event whose only output is `text`; undefined when the string cannot be found beyond doubt: it must
 * stand in the event once, with quotes and without escapes.
 */
export function learnTemplate(raw: Buffer, text: string, of: Template['of']): Template | undefined {
  if (text === '' || raw.length > maxTemplateBytes || raw.includes(0x0d)) return undefined
  const quoted = `"${text}"`
  const at = raw.indexOf(quoted)
  if (at < 0 || raw.indexOf(quoted, at + 1) >= 0) return undefined
  const end = at + Buffer.byteLength(quoted) - 1
  const prefix = raw.subarray(0, at + 1)
  // A copy, of which the others are parts: the event is part of a chunk that need not stay.
  const between = Buffer.concat([raw.subarray(end), prefix])
  const suffixBytes = between.length - prefix.length
  return { prefix: between.subarray(suffixBytes), suffix: between.subarray(0, suffixBytes), between, of }
}

/** Whether an event differs from the template in its string alone, even if that needs a parser. */
export function fitsTemplate(template: Template, raw: Buffer): boolean {
  const { prefix, suffix } = template
  if (raw.length < prefix.length + suffix.length) return false
  if (raw.compare(prefix, 0, prefix.length, 0, prefix.length) !== 0) return false
  return raw.compare(suffix, 0, suffix.length, raw.length - suffix.length) === 0
}

/** Events in a row that match a template. */
export interface Match {
  /** Where the last of them ends. */
  readonly end: number
  readonly events: number
  /** Of their strings, together. None of them is empty. */
  readonly stringBytes: number
}

/** The events in `chunk` from `from` on that match, as many as there are in a row; undefined when the first one does not. */
export function matchTemplate({ prefix, suffix, between }: Template, chunk: Buffer, from: number): Match | undefined {
  if (from + prefix.length + suffix.length >= chunk.length) return undefined
  if (!hasAt(chunk, from, prefix)) return undefined
  let end = from
  let events = 0
  let stringBytes = 0
  let start = from + prefix.length
  for (;;) {
    const stringEnd = plainStringEnd(chunk, start)
    const goesOn = stringEnd > start && hasAt(chunk, stringEnd, between)
    if (!goesOn && (stringEnd <= start || !hasAt(chunk, stringEnd, suffix))) break
    events += 1
    stringBytes += stringEnd - start
    end = stringEnd + suffix.length
    if (!goesOn) break
    start = stringEnd + between.length
  }
  return events === 0 ? undefined : { end, events, stringBytes }
}

function hasAt(chunk: Buffer, at: number, bytes: Buffer): boolean {
  const end = at + bytes.length
  return end <= chunk.length && chunk.compare(bytes, 0, bytes.length, at, end) === 0
}

const quote = 0x22
const backslash = 0x5c

/** The closing quote of a JSON string without escapes; -1 when it is not one that needs no parser. */
function plainStringEnd(chunk: Buffer, start: number): number {
  let isAscii = true
  for (let at = start; at < chunk.length; at += 1) {
    const byte = chunk[at] ?? 0
    if (byte === quote) return isAscii || isUtf8(chunk.subarray(start, at)) ? at : -1
    if (byte < 0x20 || byte === backslash) return -1
    if (byte >= 0x80) isAscii = false
  }
  return -1
}
