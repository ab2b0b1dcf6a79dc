import { isBodyLength, parseSimpleHead, type SimpleHead, withBodyLength } from './simple-head.ts'

/** A longer head is not simple. Node's limit is twice as much. */
const maxHeadBytes = 8_192

/**
 * Reads the heads of the requests of one connection. Most of them are the same in every byte, but for the length of the body:
 * such a head is not parsed again, which saves 1 to 3 µs.
 */
export class HeadReader {
  /** Bytes of the head that was read last, with the empty line at its end. */
  length = 0
  #last: KnownHead | undefined

  /**
   * The head at the begin of `bytes`; `part` when more of them are needed to tell; undefined when it is not simple, which may be
   * told only when all of it is there.
   */
  read(bytes: Buffer): SimpleHead | 'part' | undefined {
    return this.#readKnown(bytes) ?? this.#parse(bytes)
  }

  #readKnown(bytes: Buffer): SimpleHead | undefined {
    const last = this.#last
    if (last === undefined || !isAt(bytes, 0, last.start)) return undefined
    const { head, start, rest } = last
    this.length = start.length
    if (rest === undefined) return head
    let end = start.length
    while (isDigit(bytes[end])) end += 1
    if (!isAt(bytes, end, rest)) return undefined
    const digits = bytes.toString('latin1', start.length, end)
    if (digits !== head.headers['content-length'] && !isBodyLength(digits)) return undefined
    this.length = end + rest.length
    return digits === head.headers['content-length'] ? head : withBodyLength(head, digits)
  }

  #parse(bytes: Buffer): SimpleHead | 'part' | undefined {
    const end = bytes.indexOf(emptyLine)
    if (end < 0) return startsSimple(bytes) ? 'part' : undefined
    this.length = end + emptyLine.length
    if (this.length > maxHeadBytes) return undefined
    const text = bytes.toString('latin1', 0, end + 2)
    const head = parseSimpleHead(text)
    this.#last = head && known(head, text, bytes.subarray(0, this.length))
    return head
  }
}

/** A head, in the bytes before and behind the digits that say how long the body is; without such digits only the former. */
interface KnownHead {
  readonly head: SimpleHead
  readonly start: Uint8Array
  readonly rest: Uint8Array | undefined
}

/** They are copies: what they are taken from holds a body, too. */
function known(head: SimpleHead, text: string, bytes: Uint8Array): KnownHead {
  const line = lengthLine.exec(text)
  const digits = head.headers['content-length']
  if (line === null || digits === undefined) return { head, start: new Uint8Array(bytes), rest: undefined }
  const end = line.index + line[0].length
  return {
    head,
    start: new Uint8Array(bytes.subarray(0, end - digits.length)),
    rest: new Uint8Array(bytes.subarray(end)),
  }
}

const lengthLine = /\r\ncontent-length: ?\d+(?=\r\n)/i

/** Spares whoever sends something else altogether the wait for the end of a head. */
function startsSimple(bytes: Buffer): boolean {
  const first = bytes[0] ?? 0
  return first >= 0x41 && first <= 0x5a && bytes.length < maxHeadBytes
}

function isAt(bytes: Buffer, from: number, part: Uint8Array): boolean {
  const to = from + part.length
  return bytes.length >= to && bytes.compare(part, 0, part.length, from, to) === 0
}

function isDigit(byte = 0): boolean {
  return byte >= zero && byte <= 0x39
}

const zero = 0x30
const emptyLine = Buffer.from('\r\n\r\n')
