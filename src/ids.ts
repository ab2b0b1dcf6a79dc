import { randomFillSync } from 'node:crypto'

/** 32 ids' worth of random bytes at a time: one call to the generator costs as much as filling them. */
const pool = new Uint8Array(10 * 32)
let next = pool.length

/**
 * A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then 74 random bits. Ids of later milliseconds sort later;
 * within one millisecond the order is random.
 */
export function newId(nowMs: number = Date.now()): string {
  if (next === pool.length) {
    randomFillSync(pool)
    next = 0
  }
  const random = Buffer.from(pool.buffer, next, 10).toString('hex')
  next += 10
  const time = nowMs.toString(16).padStart(12, '0')
  const variant = ((Number.parseInt(random.slice(3, 4), 16) & 0x3) | 0x8).toString(16)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-${variant}${random.slice(4, 7)}-${random.slice(7, 19)}`
}

/** Whether text is a UUID as the server writes them: lower case, with dashes. Other text never reaches a uuid column. */
export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text)
}
