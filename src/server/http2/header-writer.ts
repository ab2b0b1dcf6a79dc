import type { Trailers } from '../exchange.ts'
import { httpDate } from '../http-date.ts'
import { flags, frameHeadBytes, frameMaxBytes, frameTypes, writeFrameHead } from './frames.ts'
import { fieldMaxBytes, writeEmptyTable, writeField } from './hpack-encoder.ts'
import type { Outbox } from './outbox.ts'

/** Puts header blocks, and the frames around them, into what leaves a connection. */
export class HeaderWriter {
  readonly #outbox: Outbox
  #isTableChanged = false

  constructor(outbox: Outbox) {
    this.#outbox = outbox
  }

  /** To be called when the peer changed the size of its table: the next block has to say how much of it is used. */
  tableChanged(): void {
    this.#isTableChanged = true
  }

  /** Puts the head of an answer; `list` is names and values in turn, and goes before what is in `early` under the same name. */
  answer(id: number, isLast: boolean, status: number, early: readonly string[], list: readonly string[]): void {
    const text = String(status)
    const date = httpDate()
    let room = fieldMaxBytes(':status', text) + fieldMaxBytes('date', date)
    for (let at = 0; at < early.length; at += 2) room += fieldMaxBytes(early[at] ?? '', early[at + 1] ?? '')
    for (let at = 0; at < list.length; at += 2) room += fieldMaxBytes(list[at] ?? '', list[at + 1] ?? '')
    let to = writeField(this.#begin(room), this.#at, ':status', text)
    const { block } = this.#outbox
    let hasDate = false
    for (let at = 0; at < early.length; at += 2) {
      const name = early[at] ?? ''
      if (!isIn(name, early, at + 2) && !isIn(name, list, 0)) to = writeField(block, to, name, early[at + 1] ?? '')
    }
    for (let at = 0; at < list.length; at += 2) {
      const name = list[at] ?? ''
      hasDate ||= name === 'date'
      to = writeField(block, to, name, list[at + 1] ?? '')
    }
    if (!hasDate) to = writeField(block, to, 'date', date)
    this.#finish(id, isLast, to)
  }

  /** Says that the body of a request may come (RFC 9110, section 15.2.1). */
  goOn(id: number): void {
    this.#finish(id, false, writeField(this.#begin(fieldMaxBytes(':status', '100')), this.#at, ':status', '100'))
  }

  trailers(id: number, trailers: Trailers): void {
    let room = 0
    for (const name in trailers) room += fieldMaxBytes(name, trailers[name] ?? '')
    const block = this.#begin(room)
    let to = this.#at
    for (const name in trailers) to = writeField(block, to, name, trailers[name] ?? '')
    this.#finish(id, true, to)
  }

  /** Where the fields of the block go. */
  #at = 0

  #begin(room: number): Buffer {
    const outbox = this.#outbox
    outbox.reserve(frameHeadBytes + 1 + room)
    this.#at = outbox.at + frameHeadBytes
    if (this.#isTableChanged) this.#at = writeEmptyTable(outbox.block, this.#at)
    this.#isTableChanged = false
    return outbox.block
  }

  #finish(id: number, isLast: boolean, to: number): void {
    const outbox = this.#outbox
    const { block, at } = outbox
    const length = to - at - frameHeadBytes
    const last = isLast ? flags.endStream : 0
    if (length > frameMaxBytes)
      return void this.#finishLong(id, last, Buffer.from(block.subarray(at + frameHeadBytes, to)))
    writeFrameHead(block, at, length, frameTypes.headers, flags.endHeaders | last, id)
    outbox.at = to
  }

  /** What is too long for one frame goes on in others. */
  #finishLong(id: number, last: number, fields: Buffer): void {
    for (let at = 0; at < fields.length; at += frameMaxBytes) {
      const to = Math.min(fields.length, at + frameMaxBytes)
      const end = to === fields.length ? flags.endHeaders : 0
      if (at === 0) this.#outbox.frameHead(to, frameTypes.headers, end | last, id)
      else this.#outbox.frameHead(to - at, frameTypes.continuation, end, id)
      this.#outbox.payload(fields, at, to)
    }
  }
}

function isIn(name: string, list: readonly string[], from: number): boolean {
  for (let at = from; at < list.length; at += 2) if (list[at] === name) return true
  return false
}
