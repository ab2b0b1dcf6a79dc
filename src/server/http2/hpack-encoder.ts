/**
 * Writes header blocks (RFC 7541). It puts nothing into the peer's dynamic table: so it has no state, one serves all connections,
 * and what is said again and again is made once and copied from then on. Names are in the Huffman code, as they are made once;
 * values that differ from answer to answer are written as they are, which costs the least.
 */
import { huffmanEncoded } from './hpack-huffman.ts'
import { staticLength, staticNames, staticValues } from './hpack-static.ts'

/** Writes that of the peer's table nothing is used, with which a block begins after the peer changed its size. */
export function writeEmptyTable(target: Buffer, at: number): number {
  target[at] = 0x20
  return at + 1
}

/** At most so many bytes does {@link writeField} write. */
export function fieldMaxBytes(name: string, value: string): number {
  return name.length + value.length + 2 * integerMaxBytes
}

/** Writes a header, with its name in lower case, and returns where the next one goes. */
export function writeField(target: Buffer, at: number, name: string, value: string): number {
  if (!recurring.has(name)) return writeValue(target, copy(nameOf(name), target, at), value)
  const known = fields.get(name)?.get(value)
  if (known !== undefined) return copy(known, target, at)
  return copy(makeField(name, value), target, at)
}

/** Names whose values recur: with any other, what is kept would be one call's. */
const recurring: ReadonlySet<string> = new Set([
  ':status',
  'cache-control',
  'content-encoding',
  'content-type',
  'date',
  'grpc-accept-encoding',
  'grpc-encoding',
  'grpc-status',
  'vary',
  'x-accel-buffering',
])

/** Values that are kept of each, and names. */
const maxKept = 64

const fields = new Map<string, Map<string, Buffer>>()
const names = new Map<string, Buffer>()
const integerMaxBytes = 6

function makeField(name: string, value: string): Buffer {
  const index = staticNames.findIndex((each, at) => each === name && staticValues[at] === value)
  const made = index > 0 && value !== '' ? Buffer.from([0x80 | index]) : literal(name, value)
  const known = fields.get(name)
  if (known !== undefined && known.size < maxKept) known.set(value, made)
  else fields.set(name, new Map([[value, made]]))
  return made
}

function literal(name: string, value: string): Buffer {
  const named = nameOf(name)
  const field = Buffer.allocUnsafe(named.length + integerMaxBytes + value.length)
  return field.subarray(0, writeValue(field, copy(named, field, 0), value))
}

/** The begin of a field that is not to be put into a table, up to its value. */
function nameOf(name: string): Buffer {
  const known = names.get(name)
  if (known !== undefined) return known
  const made = makeName(name)
  if (names.size < 4 * maxKept) names.set(name, made)
  return made
}

function makeName(name: string): Buffer {
  const index = staticNames.indexOf(name)
  const target = Buffer.allocUnsafe(2 * integerMaxBytes + name.length)
  if (index > 0 && index <= staticLength) return target.subarray(0, writeInteger(target, 0, 0x00, 0x0f, index))
  target[0] = 0x00
  const short = huffmanEncoded(name)
  if (short.length >= name.length) return target.subarray(0, writeValue(target, 1, name))
  return target.subarray(0, copy(short, target, writeInteger(target, 1, 0x80, 0x7f, short.length)))
}

function writeInteger(target: Buffer, start: number, flags: number, mask: number, value: number): number {
  let at = start
  if (value < mask) {
    target[at++] = flags | value
    return at
  }
  target[at++] = flags | mask
  let rest = value - mask
  while (rest >= 0x80) {
    target[at++] = (rest & 0x7f) | 0x80
    rest >>= 7
  }
  target[at++] = rest
  return at
}

/** A byte for each character. What may not be in a header is replaced: whoever hands it on in HTTP/1.1 would end a line there. */
function writeValue(target: Buffer, start: number, value: string): number {
  const at = writeInteger(target, start, 0x00, 0x7f, value.length)
  if (value.length > byHandMaxLength) {
    const written = forbidden.test(value) ? value.replace(everyForbidden, '?') : value
    return at + target.write(written, at, 'latin1')
  }
  for (let index = 0; index < value.length; index++) {
    const code = value.charCodeAt(index)
    const isAllowed = (code >= 0x20 && code <= 0xff && code !== 0x7f) || code === 0x09
    target[at + index] = isAllowed ? code : 0x3f
  }
  return at + value.length
}

/** Longer texts are faster to write by a call into Node. */
const byHandMaxLength = 40

const forbidden = /[^\t\x20-\x7e\x80-\xff]/
const everyForbidden = /[^\t\x20-\x7e\x80-\xff]/g

/** Blocks are short: a call into Node would take longer. */
function copy(bytes: Buffer, target: Buffer, at: number): number {
  for (let index = 0; index < bytes.length; index++) target[at + index] = bytes[index] ?? 0
  return at + bytes.length
}
