/**
 * Cuts a body into events, whatever chunks it arrives in: server-sent events (WHATWG HTML §9.2.6: CR, LF and CRLF, several
 * data lines, comments, a byte order mark), or one JSON value a line, as Ollama's own API sends them.
 *
 * Two departures from the standard, both because a lost word must be an error here and never a success:
 * - A line whose field has no known name is an error, and not ignored: it is what a damaged `data:` line looks like.
 * - What stands behind the last event, without the empty line that would end it, is not thrown away but left to the
 *   reader, who can tell a finished event without its line end from half an event.
 *
 * Bytes are copied only for events that came in several chunks, once. Chunks are searched for line ends, and nothing is
 * decoded here.
 */
import { TollgateError } from '../errors.ts'
import { invalidAnswer } from './failures.ts'

/** Longest line, its end not counted. An image of a model that draws comes as one line. */
const maxLineBytes = 8 * 1024 * 1024

/** Longest event, with everything in it. */
const maxEventBytes = 16 * 1024 * 1024

export type Framing = 'sse' | 'lines'

export interface RawEvent {
  /** As it came, framing included; shares memory with a chunk. */
  readonly raw: Buffer
  /** Field `event`; empty when there is none. */
  readonly name: string
  /** Data lines joined by LF, not checked to be UTF-8; undefined when there are none, as in a comment. */
  readonly data: Buffer | undefined
}

export interface EventSink {
  /**
   * Offers the bytes at `from`, where an event begins. When the sink knows it by its bytes alone, and perhaps those behind it,
   * it has taken them, and returns where the last of them ends; else -1.
   */
  skip(chunk: Buffer, from: number): number
  /** Takes an event; false when no more is wanted. */
  take(event: RawEvent): boolean
}

const lf = 0x0a
const cr = 0x0d

export class EventStream {
  readonly #framing: Framing
  readonly #sink: EventSink
  /** Of the event that is not complete. */
  #held: Buffer[] = []
  #heldBytes = 0
  /** Of the line that is not complete. */
  #lineBytes = 0
  #afterCr = false

  constructor(framing: Framing, sink: EventSink) {
    this.#framing = framing
    this.#sink = sink
  }

  /** Throws BACKEND_ANSWER_INVALID for an unknown field and BACKEND_ANSWER_TOO_LARGE beyond a ceiling; then it is over. */
  push(bytes: Uint8Array): void {
    const chunk = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let start = 0
    /** Found out when a line end is looked for. */
    let hasCr: boolean | undefined
    // The LF of a CRLF that was cut in two ends no second line.
    let at = this.#afterCr && chunk[0] === lf ? 1 : 0
    if (chunk.length > 0) this.#afterCr = false
    while (at < chunk.length) {
      if (at === start && this.#heldBytes === 0) {
        const end = this.#sink.skip(chunk, at)
        if (end > 0) {
          start = at = end
          continue
        }
      }
      hasCr ??= chunk.includes(cr, at)
      const lineEnd = hasCr ? findLineEnd(chunk, at) : chunk.indexOf(lf, at)
      if (lineEnd < 0) {
        this.#lineBytes += chunk.length - at
        break
      }
      const lineBytes = this.#lineBytes + lineEnd - at
      if (lineBytes > maxLineBytes) throw tooLarge('line', maxLineBytes)
      this.#lineBytes = 0
      at = lineEnd + 1
      if (chunk[lineEnd] === cr) {
        if (at === chunk.length) this.#afterCr = true
        else if (chunk[at] === lf) at += 1
      }
      if (lineBytes === 0 || this.#framing === 'lines') {
        const wantsMore = this.#emit(chunk.subarray(start, at))
        start = at
        if (!wantsMore) return
      }
    }
    if (start < chunk.length) this.#hold(chunk.subarray(start))
  }

  /** What stands behind the last event; undefined when that is nothing, or nothing that can be read. */
  rest(): RawEvent | undefined {
    if (this.#heldBytes === 0) return undefined
    const raw = Buffer.concat(this.#held)
    // The second half of the last line's end, which came by itself.
    if (raw.length === 1 && raw[0] === lf) return undefined
    try {
      return this.#framing === 'sse' ? readFields(raw) : readLine(raw)
    } catch {
      return { raw, name: '', data: undefined }
    }
  }

  #emit(last: Buffer): boolean {
    if (this.#heldBytes + last.length > maxEventBytes) throw tooLarge('event', maxEventBytes)
    const raw = this.#heldBytes === 0 ? last : this.#joined(last)
    // What came in several chunks may be known by its bytes as well, now that it is whole.
    if (raw !== last && this.#sink.skip(raw, 0) > 0) return true
    const event = this.#framing === 'sse' ? readFields(raw) : readLine(raw)
    return this.#sink.take(event)
  }

  #joined(last: Buffer): Buffer {
    const raw = Buffer.concat([...this.#held, last])
    this.#held = []
    this.#heldBytes = 0
    return raw
  }

  #hold(part: Buffer): void {
    this.#held.push(part)
    this.#heldBytes += part.length
    if (this.#lineBytes > maxLineBytes) throw tooLarge('line', maxLineBytes)
    if (this.#heldBytes > maxEventBytes) throw tooLarge('event', maxEventBytes)
  }
}

/** The whole events in some bytes, each with its framing, as views. */
export function splitEvents(bytes: Uint8Array, framing: Framing): Uint8Array[] {
  const events: Uint8Array[] = []
  const take = ({ raw }: RawEvent): boolean => events.push(raw) > 0
  new EventStream(framing, { skip: () => -1, take }).push(bytes)
  return events
}

/** Told where the data of an event stand. */
export type DataVisitor = (bytes: Buffer, start: number, end: number) => void

/**
 * Tells where the data of each of some whole events stand, in order; of an event without data it says nothing. That is in
 * `events` themselves, or in a copy where data come in several lines.
 */
export function visitData(events: Uint8Array, framing: Framing, visit: DataVisitor): void {
  const bytes = Buffer.from(events.buffer, events.byteOffset, events.byteLength)
  const read = framing === 'sse' ? readFields : readLine
  const hasCr = bytes.includes(cr)
  let at = 0
  while (at < bytes.length) {
    const end = hasCr ? -1 : plainEventEnd(bytes, at, framing)
    if (end < 0) break
    const start = framing === 'sse' ? at + dataStart.length : at
    const dataEnd = framing === 'sse' ? end - 2 : end - 1
    if (dataEnd > start) visit(bytes, start, dataEnd)
    at = end
  }
  for (const event of at < bytes.length ? splitEvents(bytes.subarray(at), framing) : []) {
    const { data } = read(Buffer.from(event.buffer, event.byteOffset, event.byteLength))
    if (data !== undefined && data.length > 0) visit(data, 0, data.length)
  }
}

/**
 * Where the event that begins at `from` ends when it is, among bytes without CR, as nearly all are: one line of data and,
 * among server-sent events, an empty line. Else -1.
 */
function plainEventEnd(bytes: Buffer, from: number, framing: Framing): number {
  if (framing === 'lines') return bytes.indexOf(lf, from) + 1 || -1
  for (let at = 0; at < dataStart.length; at += 1) if (bytes[from + at] !== dataStart[at]) return -1
  const end = bytes.indexOf(lf, from + dataStart.length)
  return end >= 0 && bytes[end + 1] === lf ? end + 2 : -1
}

function findLineEnd(chunk: Buffer, from: number): number {
  for (let at = from; at < chunk.length; at += 1) {
    const byte = chunk[at]
    if (byte === lf || byte === cr) return at
  }
  return -1
}

function readLine(raw: Buffer): RawEvent {
  let end = raw.length
  while (end > 0 && (raw[end - 1] === lf || raw[end - 1] === cr)) end -= 1
  return { raw, name: '', data: end === 0 ? undefined : raw.subarray(0, end) }
}

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf])
const lineBreak = Buffer.from([lf])
const colon = 0x3a
const space = 0x20

const dataStart = Buffer.from('data: ')

function readFields(raw: Buffer): RawEvent {
  const isPlain = plainEventEnd(raw, 0, 'sse') === raw.length && !raw.includes(cr)
  return isPlain ? { raw, name: '', data: raw.subarray(dataStart.length, raw.length - 2) } : readAnyFields(raw)
}

function readAnyFields(raw: Buffer): RawEvent {
  const hasCr = raw.includes(cr)
  const data: Buffer[] = []
  let name = ''
  let at = raw.subarray(0, 3).equals(byteOrderMark) ? 3 : 0
  while (at < raw.length) {
    const found = hasCr ? findLineEnd(raw, at) : raw.indexOf(lf, at)
    const end = found < 0 ? raw.length : found
    if (end > at) {
      const colonAt = raw.subarray(at, end).indexOf(colon)
      const fieldEnd = colonAt < 0 ? end : at + colonAt
      const valueStart = Math.min(end, fieldEnd + (raw[fieldEnd + 1] === space ? 2 : 1))
      const field = raw.toString('latin1', at, Math.min(fieldEnd, at + maxFieldName))
      if (field === 'data' || field === 'error') data.push(raw.subarray(valueStart, end))
      // llama.cpp has sent errors in a field of that name.
      if (field === 'error') name = field
      else if (field === 'event') name = raw.toString('utf8', valueStart, end)
      else if (!otherFields.has(field)) throw invalidAnswer('is no stream of events')
    }
    at = end + 1
  }
  return { raw, name, data: joinLines(data) }
}

/** Comments have an empty name. */
const otherFields: ReadonlySet<string> = new Set(['data', '', 'id', 'retry'])
const maxFieldName = 8

function joinLines(lines: readonly Buffer[]): Buffer | undefined {
  if (lines.length < 2) return lines[0]
  return Buffer.concat(lines.flatMap((line, index) => (index === 0 ? [line] : [lineBreak, line])))
}

function tooLarge(what: string, maxBytes: number): TollgateError {
  return new TollgateError(
    'BACKEND_ANSWER_TOO_LARGE',
    `The service's backend sent a stream with one ${what} of more than ${maxBytes} bytes.`,
    { metadata: { maxBytes: String(maxBytes) } },
  )
}
