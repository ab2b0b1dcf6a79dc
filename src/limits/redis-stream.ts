import type { RedisClient } from '../storage/redis.ts'
import { asArray, asFacts, command } from './redis-scripts.ts'

/** An entry of the usage stream. */
export interface StreamEntry {
  readonly id: string
  /** What stands where the event should; undefined when nothing does. */
  readonly json: string | undefined
}

/** Entries of a page: a server answers each in well under a millisecond, and a page fits in memory. */
const page = 500

/** Every entry, oldest first, in pages, so that no command holds the server for long. Fails as {@link command} does. */
export async function* readStream(redis: RedisClient, stream: string): AsyncGenerator<StreamEntry> {
  for (let from = '-'; ; ) {
    const start = from
    const items = asArray(await command(() => redis.call('xrange', stream, start, '+', 'COUNT', page)))
    for (const item of items) {
      const entry = parseEntry(item)
      yield entry
      from = `(${entry.id}`
    }
    if (items.length < page) return
  }
}

/** An entry as XRANGE, XREADGROUP and XAUTOCLAIM answer it. */
export function parseEntry(item: unknown): StreamEntry {
  const [id, fields] = asArray(item)
  const json = asFacts(fields).get('event')
  return { id: String(id), json: typeof json === 'string' ? json : undefined }
}

/** Order of entry ids, "milliseconds-number". */
export function isAfter(id: string, other: string): boolean {
  const [ms = 0, number = 0] = id.split('-').map(Number)
  const [otherMs = 0, otherNumber = 0] = other.split('-').map(Number)
  return ms > otherMs || (ms === otherMs && number > otherNumber)
}
