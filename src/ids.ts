import { randomFillSync } from 'node:crypto'

/** Many ids' worth of random bytes at a time: one call to the generator costs as much as filling some of them. */
const pool = new Uint8Array(10 * 512)
let next = pool.length

/** The latest id. Written over, and read as one text: an id put together from texts is a chain of them until it is used. */
const text = Buffer.from('00000000-0000-7000-8000-000000000000')
/** Where in it random digits are, but for the one that says the variant in two of its bits. */
const places = Uint8Array.of(15, 16, 17, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35)
const variantPlace = 19
const digits = Buffer.from('0123456789abcdef')

/** Of the latest id. */
let timeMs = Number.NaN

/**
 * A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then 74 random bits. Ids of later milliseconds sort later;
 * within one millisecond the order is random. Every call makes two: 0.1 µs each.
 */
export function newId(nowMs: number = Date.now()): string {
  if (nowMs !== timeMs) {
    const time = nowMs.toString(16).padStart(12, '0')
    text.write(`${time.slice(0, 8)}-${time.slice(8)}`, 'latin1')
    timeMs = nowMs
  }
  if (next === pool.length) {
    randomFillSync(pool)
    next = 0
  }
  text[variantPlace] = digitOf(8 | (nextByte() & 3))
  for (let at = 0; at < places.length; at += 2) {
    const byte = nextByte()
    text[places[at] ?? 0] = digitOf(byte >> 4)
    text[places[at + 1] ?? 0] = digitOf(byte & 15)
  }
  return text.toString('latin1')
}

function nextByte(): number {
  const byte = pool[next] ?? 0
  next += 1
  return byte
}

function digitOf(value: number): number {
  return digits[value] ?? 0
}

/** Whether text is a UUID as the server writes them: lower case, with dashes. Other text never reaches a uuid column. */
export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text)
}
