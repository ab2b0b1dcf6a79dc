/**
 * The Huffman code of HPACK (RFC 7541, appendix B). It is canonical: shorter codes come first, and those of one length in the
 * order of their symbols. So the lengths say all of it.
 */
import { ConnectionError, errorCodes } from './error-codes.ts'

// biome-ignore format: a row for each sixteen symbols; the last one is the end of a string.
const lengths = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
]

const endOfString = 256
const codes = codesOf(lengths)

function codesOf(each: readonly number[]): number[] {
  const found: number[] = []
  const symbols = each.map((length, symbol) => ({ length, symbol })).sort((a, b) => a.length - b.length)
  let code = 0
  let before = 0
  for (const { length, symbol } of symbols) {
    code <<= length - before
    before = length
    found[symbol] = code++
  }
  return found
}

/**
 * Steps of four bits, which end one symbol at most, as no code is shorter than five: 16 for each place in the tree of codes.
 * A step is the next place, and above it a symbol that ended, plus one.
 */
const steps = new Int32Array(256 * 16)
const symbolShift = 8
const failed = -1

/** Places where a string may end: after a symbol, and so many ones that no byte is filled. */
const mayEnd = new Uint8Array(256)

buildSteps()

function buildSteps(): void {
  // Children of each place: another place, or a symbol as its complement.
  const children: [number, number][] = [[0, 0]]
  for (let symbol = 0; symbol <= endOfString; symbol++) {
    let place = 0
    for (let bit = (lengths[symbol] ?? 0) - 1; bit >= 0; bit--) {
      const side = ((codes[symbol] ?? 0) >> bit) & 1
      const pair = children[place] ?? [0, 0]
      if (bit === 0) pair[side] = ~symbol
      else if (pair[side] === 0) pair[side] = children.push([0, 0]) - 1
      place = pair[side] ?? 0
    }
  }
  for (let place = 0; place < 256; place++) {
    for (let nibble = 0; nibble < 16; nibble++) steps[place * 16 + nibble] = stepOf(children, place, nibble)
  }
  for (let place = 0, ones = 0; ones < 8; ones++, place = children[place]?.[1] ?? 0) mayEnd[place] = 1
}

function stepOf(children: readonly (readonly [number, number])[], from: number, nibble: number): number {
  let place = from
  let ended = 0
  for (let bit = 3; bit >= 0; bit--) {
    const next = children[place]?.[((nibble >> bit) & 1) as 0 | 1] ?? 0
    if (next === ~endOfString) return failed
    if (next < 0) ended = ~next + 1
    place = Math.max(next, 0)
  }
  return place | (ended << symbolShift)
}

/** The text of `bytes` from `from` until `to`, a character for each byte. */
export function huffmanDecoded(bytes: Buffer, from: number, to: number): string {
  const text = scratchFor(((to - from) * 8) / 5)
  let length = 0
  let place = 0
  for (let at = from; at < to; at++) {
    const byte = bytes[at] ?? 0
    const high = steps[place * 16 + (byte >> 4)] ?? failed
    if (high === failed) throw notHuffman()
    if (high >= 256) text[length++] = (high >> symbolShift) - 1
    const low = steps[(high & 255) * 16 + (byte & 15)] ?? failed
    if (low === failed) throw notHuffman()
    if (low >= 256) text[length++] = (low >> symbolShift) - 1
    place = low & 255
  }
  if (mayEnd[place] !== 1) throw notHuffman()
  return text.toString('latin1', 0, length)
}

/** The code of a text of one byte a character. */
export function huffmanEncoded(text: string): Buffer {
  let bits = 0
  for (let at = 0; at < text.length; at++) bits += lengths[text.charCodeAt(at)] ?? 0
  // What is left of the last byte is ones.
  const bytes = Buffer.alloc(Math.ceil(bits / 8), 0xff)
  let bit = 0
  for (let at = 0; at < text.length; at++) {
    const symbol = text.charCodeAt(at)
    for (let left = (lengths[symbol] ?? 0) - 1; left >= 0; left--, bit++) {
      if ((((codes[symbol] ?? 0) >> left) & 1) === 0) bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) & ~(0x80 >> (bit & 7))
    }
  }
  return bytes
}

let scratch = Buffer.allocUnsafeSlow(4096)

function scratchFor(length: number): Buffer {
  if (length > scratch.length) scratch = Buffer.allocUnsafeSlow(2 * length)
  return scratch
}

function notHuffman(): ConnectionError {
  return new ConnectionError(errorCodes.compressionError, 'a string of a header block is not in the Huffman code')
}
