/**
 * Parses a body without the long values that nobody here reads: the texts, vectors and images that make it long.
 *
 * The bytes are walked from string to string, as far as there is room for a long one. Within a string a quote has a
 * backslash before it, so strings are told apart by the search for quotes alone. A long value under one of the names in
 * {@link unread} is left out, so that `""` or `[]` stands in its place, and what is left goes through JSON.parse. All of
 * its rules hold for that: structure, the last of two equal names, names with escapes, text inside strings that looks like
 * usage. So the result is JSON.parse's own but for those values, and damage anywhere else is found as ever. What is not
 * looked at is whether a text that was left out is spelled well: an escape that does not exist, a control character (a raw
 * line break or tab is found), or in a vector a number that is none.
 *
 * Microseconds of one core for a body, first when all of it is parsed (`node bench/bodies.ts`; Node 24, AMD EPYC):
 * | | 0.7 KiB | 4 KiB | 8 KiB | 16 KiB | 256 KiB |
 * |---|---|---|---|---|---|
 * | prose | 1.1, 1.2 | 2.2, 2.7 | 3.9, 2.9 | 6.8, 2.9 | 370, 12 |
 * | with typographic quotes | 1.7, 2.0 | 4.4, 2.4 | 7.8, 2.9 | 14, 3.4 | 680, 18 |
 * | a vector of numbers | 2.0, 2.9 | 5.9, 2.0 | 18, 2.0 | 35, 2.2 | 375, 8.8 |
 * | code, full of quotes, which is given up | 1.3, 1.5 | 3.4, 4.9 | 6.8, 7.8 | 12, 20 | 374, 435 |
 *
 * And a text of 256 KiB is an old object to V8 from the beginning: where none is made, it collects the whole heap less often.
 *
 * Hence {@link skimMinBytes}. A scanner of our own that checks every byte is no faster than JSON.parse.
 */
import { isUtf8 } from 'node:buffer'
import { parseObject } from './json.ts'
import { bracket, closingBracket, colon, isEscaped, quote, skipSpace } from './json-scan.ts'

/** Below this, a body is parsed as a whole. */
export const skimMinBytes = 8192

/** What was parsed of a body. */
export interface Skimmed {
  readonly object: Record<string, unknown>
  /** Whether nothing was left out. */
  readonly isWhole: boolean
}

/** The object that a body is whose texts nobody reads; undefined for what is no object. */
export function skim(body: Uint8Array): Skimmed | undefined {
  if (body.length >= skimMinBytes) return skimObject(body)
  const object = parseObject(body)
  return object === undefined ? undefined : { object, isWhole: true }
}

/** The same without saying whether it is whole. */
export function parseForFacts(body: Uint8Array): Record<string, unknown> | undefined {
  return skim(body)?.object
}

/** Names of values that may be left out wherever they stand, as they are in the bytes. */
const unread: ReadonlySet<string> = new Set([
  '"content"',
  '"text"',
  '"reasoning_content"',
  '"reasoning"',
  '"thinking"',
  '"refusal"',
  '"response"',
  '"arguments"',
  '"embedding"',
  '"prompt"',
  '"input"',
  '"instructions"',
  '"system"',
  // Images, sound and files, and reasoning that is sealed.
  '"result"',
  '"data"',
  '"url"',
  '"image_url"',
  '"file_data"',
  '"encrypted_content"',
  '"signature"',
  '"thoughtSignature"',
])
const vectorName = '"embedding"'

/** So many strings in a row without a long value end the walk: log probabilities are made of short ones. */
const maxShortStrings = 64

/** A text with quotes closer than this on average, which shows after so many, is parsed faster than it is skipped. */
const minQuoteDistance = 32
const quotesToJudge = 8

/**
 * The object that the bytes are as UTF-8 JSON, with long values under the names above empty where that is the cheaper
 * way; undefined for anything else. Values of at least `longBytes` are long.
 */
export function skimObject(bytes: Uint8Array, longBytes = 1024): Skimmed | undefined {
  if (!isUtf8(bytes)) return undefined
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const read = withoutLongValues(buffer, longBytes)
  const object = parseObject(read)
  return object === undefined ? undefined : { object, isWhole: read === buffer }
}

function withoutLongValues(bytes: Buffer, longBytes: number): Buffer {
  const parts: Buffer[] = []
  let kept = 0
  let last: Range = { start: 0, end: 0 }
  let shortStrings = 0
  let start = bytes.indexOf(quote)
  while (start >= 0 && start + longBytes < bytes.length && shortStrings < maxShortStrings) {
    const end = stringEnd(bytes, start)
    if (end < 0) break
    const string = { start, end }
    const left = end - start > longBytes ? textInside(bytes, last, string) : vectorInside(bytes, string, longBytes)
    if (left !== undefined) {
      parts.push(bytes.subarray(kept, left.start))
      kept = left.end
    }
    shortStrings = left === undefined ? shortStrings + 1 : 0
    last = string
    start = bytes.indexOf(quote, Math.max(end, kept))
  }
  return parts.length === 0 ? bytes : Buffer.concat([...parts, bytes.subarray(kept)])
}

interface Range {
  readonly start: number
  readonly end: number
}

/** What is inside the quotes of a long string; undefined when it is not one to leave out. */
function textInside(bytes: Buffer, name: Range, { start, end }: Range): Range | undefined {
  if (valueStart(bytes, name) !== start || !unread.has(nameAt(bytes, name))) return undefined
  const text = { start: start + 1, end: end - 1 }
  return breaks.some((byte) => bytes.subarray(text.start, text.end).includes(byte)) ? undefined : text
}

/** What is inside the brackets of a long list of numbers behind the name of one; undefined when there is none. */
function vectorInside(bytes: Buffer, name: Range, longBytes: number): Range | undefined {
  const open = valueStart(bytes, name)
  if (bytes[open] !== bracket || nameAt(bytes, name) !== vectorName) return undefined
  const end = bytes.indexOf(closingBracket, open)
  const isFlat = ![quote, bracket].some((byte) => isWithin(bytes.indexOf(byte, open + 1), end))
  return isFlat && end - open > longBytes ? { start: open + 1, end } : undefined
}

/** Where the value of a name begins; -1 behind a string that is no name. */
function valueStart(bytes: Buffer, name: Range): number {
  const colonAt = skipSpace(bytes, name.end)
  return bytes[colonAt] === colon ? skipSpace(bytes, colonAt + 1) : -1
}

/** With its quotes. */
function nameAt(bytes: Buffer, { start, end }: Range): string {
  return bytes.toString('latin1', start, end)
}

function isWithin(at: number, end: number): boolean {
  return at >= 0 && at < end
}

/** Behind the string that begins at `from`; -1 when it does not end, or is not worth the search. */
function stringEnd(bytes: Buffer, from: number): number {
  let quotes = 0
  for (let at = bytes.indexOf(quote, from + 1); at >= 0; at = bytes.indexOf(quote, at + 1)) {
    if (!isEscaped(bytes, at)) return at + 1
    quotes += 1
    if (quotes >= quotesToJudge && at - from < quotes * minQuoteDistance) return -1
  }
  return -1
}

/** What JSON that was put together by hand has most often in its texts, where it may not be. */
const breaks = [0x0a, 0x0d, 0x09]
