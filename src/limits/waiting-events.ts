import type { UsageEvent } from '../metering/usage-event.ts'
import { decodeFields } from './event-codec.ts'
import { mostCharacterBytes } from './segment-frames.ts'

/** Room of a page, and events that it holds at most. A larger event has a page of its own. */
const pageBytes = 64 * 1024
const pageEvents = 256
/** Pages that are kept to be written again: what waits when the ledger keeps up. */
const sparePages = 32

const [listBegins, comma, listEnds] = Buffer.from('[,]')

/**
 * Events that wait for the ledger, as the texts that the log has of them, in a few pages of bytes. As an object an event is
 * 1.2 KB in two dozen pieces, and all that came since the last batch was what V8's collector had to copy. Pages are used
 * again: they live for so long that V8 counts them as old, and would free them only when it collects the whole heap.
 *
 * Each event has a number, from 0, growing by 1 in the order in which they came.
 */
export class WaitingEvents {
  #pages: Page[] = []
  /** Empty ones. */
  readonly #spare: Page[] = []
  #end = 0

  /** Number of the event that comes next. */
  get end(): number {
    return this.#end
  }

  /** `json` is the text of an event that stands in the record with this number. */
  add(sequence: number, json: string): void {
    // To count its bytes takes as long as to write them: it is done for the largest only.
    const most = json.length * mostCharacterBytes + 1
    let page = this.#pages.at(-1)
    if (page === undefined || !page.hasRoom(most)) {
      page = most <= pageBytes ? this.#spare.pop() : new Page(Math.max(pageBytes, Buffer.byteLength(json) + 1))
      page ??= new Page(pageBytes)
      page.begin(this.#end)
      this.#pages.push(page)
    }
    page.add(sequence, json)
    this.#end += 1
  }

  /** Number of the record in which an event stands that is still here. */
  sequenceOf(number: number): number | undefined {
    for (const page of this.#pagesOf(number, number + 1)) return page.sequenceOf(number)
    return undefined
  }

  /** JSON of a list of the events from one number up to another that are still here, in memory of its own. */
  list(from: number, to: number): Buffer<ArrayBuffer> {
    const parts = [...this.#pagesOf(from, to)].map((page) => page.bytesOf(from, to))
    const length = parts.reduce((sum, part) => sum + part.length, 0)
    const list = Buffer.allocUnsafeSlow(1 + Math.max(1, length))
    let at = list.writeUInt8(listBegins ?? 0)
    for (const part of parts) {
      list.set(part, at)
      at += part.length
    }
    // In the place of the last comma.
    list.writeUInt8(listEnds ?? 0, list.length - 1)
    return list
  }

  /** Of the same events those in whose text this one occurs: only they are decoded. */
  *with(text: string, from: number, to: number): Generator<UsageEvent> {
    for (const page of this.#pagesOf(from, to)) yield* page.with(text, from, to)
  }

  /** Forgets the events with lower numbers, as far as they fill pages. */
  forgetBefore(number: number): void {
    while (this.#pages[0] !== undefined && this.#pages[0].end <= number) {
      const page = this.#pages.shift()
      if (page?.room === pageBytes && this.#spare.length < sparePages) this.#spare.push(page)
    }
  }

  *#pagesOf(from: number, to: number): Generator<Page> {
    for (const page of this.#pages) {
      if (page.first >= to) return
      if (page.end > from) yield page
    }
  }
}

/** Events with numbers that follow each other. */
class Page {
  first = 0
  end = 0
  /** Each text is followed by a comma. */
  readonly #bytes: Buffer
  /** Where each event ends, comma included, and the number of its record. */
  readonly #ends = new Uint32Array(pageEvents)
  readonly #sequences = new Float64Array(pageEvents)
  #size = 0

  constructor(room: number) {
    this.#bytes = Buffer.allocUnsafeSlow(room)
  }

  get room(): number {
    return this.#bytes.length
  }

  /** Forgets what it had; the first event that comes now has this number. */
  begin(first: number): void {
    this.first = first
    this.end = first
    this.#size = 0
  }

  hasRoom(length: number): boolean {
    return this.end - this.first < pageEvents && this.#size + length <= this.#bytes.length
  }

  add(sequence: number, json: string): void {
    const index = this.end - this.first
    this.#size += this.#bytes.write(json, this.#size)
    this.#size = this.#bytes.writeUInt8(comma ?? 0, this.#size)
    this.#ends[index] = this.#size
    this.#sequences[index] = sequence
    this.end += 1
  }

  sequenceOf(number: number): number | undefined {
    return this.#sequences[number - this.first]
  }

  bytesOf(from: number, to: number): Uint8Array {
    return this.#bytes.subarray(this.#startOf(Math.max(from, this.first)), this.#startOf(Math.min(to, this.end)))
  }

  *with(text: string, from: number, to: number): Generator<UsageEvent> {
    const bytes = this.#bytes.subarray(0, this.#startOf(Math.min(to, this.end)))
    let number = Math.max(from, this.first)
    for (;;) {
      const found = bytes.indexOf(text, this.#startOf(number))
      if (found < 0) return
      while (this.#startOf(number + 1) <= found) number += 1
      yield decodeFields(bytes.toString('utf8', this.#startOf(number), this.#startOf(number + 1) - 1))
      number += 1
    }
  }

  #startOf(number: number): number {
    return number === this.first ? 0 : (this.#ends[number - this.first - 1] ?? 0)
  }
}
