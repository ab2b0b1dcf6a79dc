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
  return { prefix: Buffer.from(raw.subarray(0, at + 1)), suffix: Buffer.from(raw.subarray(end)), of }
}

/** Whether an event differs from the template in its string alone, even if that needs a parser. */
export function fitsTemplate(template: Template, raw: Buffer): boolean {
  const { prefix, suffix } = template
  if (raw.length < prefix.length + suffix.length) return false
  if (raw.compare(prefix, 0, prefix.length, 0, prefix.length) !== 0) return false
  return raw.compare(suffix, 0, suffix.length, raw.length - suffix.length) === 0
}

/** Where the string ends in the event that begins at `from`, or -1 when it does not match. It is never empty. */
export function matchTemplate(template: Template, chunk: Buffer, from: number): number {
  const { prefix, suffix } = template
  const start = from + prefix.length
  if (start + suffix.length >= chunk.length + 1) return -1
  if (chunk.compare(prefix, 0, prefix.length, from, start) !== 0) return -1
  const end = plainStringEnd(chunk, start)
  if (end <= start || end + suffix.length > chunk.length) return -1
  return chunk.compare(suffix, 0, suffix.length, end, end + suffix.length) === 0 ? end : -1
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
