/**
 * Reads header blocks (RFC 7541). One decoder a connection: its dynamic table is what the blocks so far have put there, so each
 * block has to be read, whatever becomes of its request.
 */
import { ConnectionError, errorCodes } from './error-codes.ts'
import { huffmanDecoded } from './hpack-huffman.ts'
import { staticLength, staticNames, staticValues } from './hpack-static.ts'

/** Bytes of the dynamic table, as by default; names and values count, and so much for each entry beside them. */
const tableMaxBytes = 4096
const entryBytes = 32

export class HpackDecoder {
  /** Goes up with each change of the dynamic table: at one version, the same bytes say the same. */
  version = 0
  /** The dynamic table, the newest entry last; those before `#oldest` are gone. */
  #names: string[] = []
  #values: string[] = []
  #oldest = 0
  #tableBytes = 0
  #tableLimit = tableMaxBytes
  #bytes: Buffer = noBuffer
  #at = 0
  #to = 0

  /**
   * Names and values in turn, a character for each byte. Undefined when they are more than `maxListBytes`, counted as
   * SETTINGS_MAX_HEADER_LIST_SIZE counts. Throws COMPRESSION_ERROR.
   */
  decode(bytes: Buffer, from: number, to: number, maxListBytes: number): string[] | undefined {
    this.#bytes = bytes
    this.#at = from
    this.#to = to
    this.#resize()
    const list: string[] = []
    let listBytes = 0
    while (this.#at < this.#to) {
      const first = this.#bytes[this.#at] ?? 0
      let name: string
      let value: string
      if (first >= 0x80) {
        const index = this.#integer(0x7f)
        name = this.#nameAt(index)
        value = this.#valueAt(index)
      } else {
        const isKept = first >= 0x40
        // What begins with 001 changes the size of the table, for which it is too late.
        if (!isKept && first >= 0x20) throw wrong('a change of the table size is not at the begin of its block')
        const index = this.#integer(isKept ? 0x3f : 0x0f)
        name = index === 0 ? this.#text() : this.#nameAt(index)
        value = this.#text()
        if (isKept) this.#keep(name, value)
      }
      listBytes += name.length + value.length + entryBytes
      if (listBytes <= maxListBytes) list.push(name, value)
    }
    this.#bytes = noBuffer
    return listBytes <= maxListBytes ? list : undefined
  }

  /** Takes the changes of the table size that a block may begin with. */
  #resize(): void {
    while (this.#at < this.#to && ((this.#bytes[this.#at] ?? 0) & 0xe0) === 0x20) {
      const limit = this.#integer(0x1f)
      if (limit > tableMaxBytes) throw wrong('the dynamic table would be larger than allowed')
      this.#tableLimit = limit
      this.#evict()
      this.version++
    }
  }

  #nameAt(index: number): string {
    const name = index <= staticLength ? staticNames[index] : this.#names[this.#placeOf(index)]
    if (name === undefined || index === 0) throw wrong('an index is not in the tables')
    return name
  }

  #valueAt(index: number): string {
    return (index <= staticLength ? staticValues[index] : this.#values[this.#placeOf(index)]) ?? ''
  }

  #placeOf(index: number): number {
    const place = this.#names.length - (index - staticLength)
    return place >= this.#oldest ? place : -1
  }

  #keep(name: string, value: string): void {
    this.#names.push(name)
    this.#values.push(value)
    this.#tableBytes += name.length + value.length + entryBytes
    this.#evict()
    this.version++
  }

  #evict(): void {
    while (this.#tableBytes > this.#tableLimit) {
      const at = this.#oldest++
      this.#tableBytes -= (this.#names[at] ?? '').length + (this.#values[at] ?? '').length + entryBytes
    }
    // Not one by one: the others would move each time.
    if (this.#oldest < 64) return
    this.#names = this.#names.slice(this.#oldest)
    this.#values = this.#values.slice(this.#oldest)
    this.#oldest = 0
  }

  /** An integer whose first bits are those of `mask` in the next byte (section 5.1). */
  #integer(mask: number): number {
    let value = (this.#bytes[this.#at++] ?? 0) & mask
    if (value < mask) return value
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.#at >= this.#to) throw wrong('a header block ends in the middle of a number')
      const byte = this.#bytes[this.#at++] ?? 0
      value += (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw wrong('a number of a header block is too large')
  }

  #text(): string {
    if (this.#at >= this.#to) throw wrong('a header block ends before a string')
    const isHuffman = (this.#bytes[this.#at] ?? 0) >= 0x80
    const length = this.#integer(0x7f)
    const from = this.#at
    this.#at += length
    if (this.#at > this.#to) throw wrong('a header block ends in the middle of a string')
    return isHuffman ? huffmanDecoded(this.#bytes, from, this.#at) : this.#bytes.toString('latin1', from, this.#at)
  }
}

const noBuffer: Buffer = Buffer.alloc(0)

function wrong(message: string): ConnectionError {
  return new ConnectionError(errorCodes.compressionError, message)
}
