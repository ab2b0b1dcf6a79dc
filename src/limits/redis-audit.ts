/**
 * Reads everything that the books need from Redis and changes nothing: SCAN, GET, ZSCAN, HSCAN, XRANGE, XINFO and XPENDING, in
 * pages, so that no command holds the server for long.
 *
 * A call moves from slice to reservation to usage stream to ledger. It is read in that order, so that nothing can slip past: who
 * moves on meanwhile is seen twice, never not at all. Open reservations are found by their leases, because the keys of
 * reservations are mostly memories of settled calls, millions of them.
 */
import { Cluster } from 'ioredis'
import type { RedisClient } from '../storage/redis.ts'
import { decodeEvent } from './event-codec.ts'
import { parsePeriodKey } from './limit-keys.ts'
import type { CounterReading, Hold, LimitsReading, LoggedEvent, OpenReservation } from './limits-reading.ts'
import { holdsOf } from './redis-arguments.ts'
import { RedisKeys, usageGroup } from './redis-keys.ts'
import { asArray, asFacts, isReply } from './redis-scripts.ts'
import { isAfter, readStream, type StreamEntry } from './redis-stream.ts'

/** Counters, open reservations and the usage stream. Throws what Redis or its connection throws. */
export async function readRedisLimits(redis: RedisClient, keys = new RedisKeys()): Promise<LimitsReading> {
  // Before the counters: where nobody holds slices, nothing is read between counters and reservations.
  const holders = asArray(await redis.call('zrange', keys.holdings(), 0, -1)).map(String)
  const counters = await readCounters(redis, keys)
  const slices = await readSlices(redis, keys, holders)
  const open = await readReservations(redis, keys)
  const stream = await readUsage(redis, keys.usage())
  const rejected = Number(await redis.call('xlen', keys.rejected()))
  return {
    counters,
    reservations: open.reservations,
    slices,
    events: stream.events,
    unreadable: open.unreadable + stream.unreadable + rejected,
  }
}

/** Entries of a page: a server answers each in well under a millisecond's worth of entries, and a page fits in memory. */
const page = 500

async function readCounters(redis: RedisClient, keys: RedisKeys): Promise<CounterReading[]> {
  const found = new Map<string, string>()
  for (const node of redis instanceof Cluster ? redis.nodes('master') : [redis]) {
    let cursor = '0'
    do {
      const [next, names] = asArray(await node.call('scan', cursor, 'MATCH', keys.limitPattern(), 'COUNT', 2 * page))
      for (const name of asArray(names)) {
        const key = typeof name === 'string' ? keys.parseLimit(name) : undefined
        if (typeof name === 'string' && key !== undefined && parsePeriodKey(key) !== undefined) found.set(name, key)
      }
      cursor = String(next)
    } while (cursor !== '0')
  }
  const names = [...found.keys()]
  const counters: CounterReading[] = []
  for (let from = 0; from < names.length; from += page) {
    const part = names.slice(from, from + page)
    const values = asArray(await redis.call('mget', ...part))
    part.forEach((name, index) => {
      const value = values[index]
      if (typeof value === 'string') counters.push({ key: found.get(name) ?? '', ...parseCounter(name, value) })
    })
  }
  return counters
}

/** The form that buckets.lua writes: 'used held version told80 told100', with 'u' for used while it is unknown. */
function parseCounter(name: string, value: string): Omit<CounterReading, 'key'> {
  const [, used, held] = /^(u|\d+) (\d+) \d+ \d+ \d+$/.exec(value) ?? []
  if (used === undefined) throw new Error(`the counter ${name} of Redis does not hold what it should`)
  return { used: used === 'u' ? undefined : Number(used), held: Number(held) }
}

async function readSlices(redis: RedisClient, keys: RedisKeys, holders: readonly string[]): Promise<Hold[]> {
  const slices: Hold[] = []
  for (const id of holders) {
    let cursor = '0'
    do {
      const [next, pairs] = asArray(await redis.call('hscan', keys.holding(id), cursor, 'COUNT', page))
      for (const [text, units] of asFacts(pairs)) slices.push(...holdsOf(`${String(units)} ${text}`, keys))
      cursor = String(next)
    } while (cursor !== '0')
  }
  return slices
}

async function readReservations(
  redis: RedisClient,
  keys: RedisKeys,
): Promise<{ reservations: OpenReservation[]; unreadable: number }> {
  const ids = new Set<string>()
  let cursor = '0'
  do {
    const [next, pairs] = asArray(await redis.call('zscan', keys.leases(), cursor, 'COUNT', page))
    for (const id of asFacts(pairs).keys()) ids.add(id)
    cursor = String(next)
  } while (cursor !== '0')
  const names = [...ids].map((id) => keys.reservation(id))
  const reservations: OpenReservation[] = []
  let unreadable = 0
  for (let from = 0; from < names.length; from += page) {
    for (const held of asArray(await redis.call('mget', ...names.slice(from, from + page)))) {
      // Settled or swept since its lease was read.
      if (typeof held !== 'string' || !held.startsWith('o')) continue
      const reservation = parseReservation(keys, held)
      if (reservation === undefined) unreadable += 1
      else reservations.push(reservation)
    }
  }
  return { reservations, unreadable }
}

/** The form that admit.lua writes: 'o' plan \n event. */
function parseReservation(keys: RedisKeys, held: string): OpenReservation | undefined {
  const [plan = '', json = ''] = held.slice(1).split('\n', 2)
  const event = decodeEvent(json)
  return event === undefined ? undefined : { event, holds: holdsOf(plan, keys) }
}

/**
 * Entries first, then what is pending, then (by the caller) the ledger: an entry that is neither pending nor still to be
 * delivered was acknowledged before the ledger is read, so the ledger must have it.
 */
async function readUsage(redis: RedisClient, stream: string): Promise<{ events: LoggedEvent[]; unreadable: number }> {
  const entries: StreamEntry[] = []
  for await (const entry of readStream(redis, stream)) entries.push(entry)
  const delivered = entries.length === 0 ? undefined : await lastDelivered(redis, stream)
  const pending = delivered === undefined ? new Set() : await readPending(redis, stream)
  const events: LoggedEvent[] = []
  let unreadable = 0
  for (const { id, json } of entries) {
    const event = json === undefined ? undefined : decodeEvent(json)
    const acknowledged = delivered !== undefined && !isAfter(id, delivered) && !pending.has(id)
    if (event !== undefined) events.push({ event, acknowledged })
    // Acknowledged ones are counted where they were set aside.
    else if (!acknowledged) unreadable += 1
  }
  return { events, unreadable }
}

async function lastDelivered(redis: RedisClient, stream: string): Promise<string | undefined> {
  try {
    const groups = asArray(await redis.call('xinfo', 'GROUPS', stream)).map(asFacts)
    const id = groups.find((facts) => facts.get('name') === usageGroup)?.get('last-delivered-id')
    return typeof id === 'string' ? id : undefined
  } catch (error) {
    if (isReply(error, 'ERR no such key')) return undefined
    throw error
  }
}

async function readPending(redis: RedisClient, stream: string): Promise<Set<string>> {
  const pending = new Set<string>()
  for (let from = '-'; ; ) {
    let items: readonly unknown[]
    try {
      items = asArray(await redis.call('xpending', stream, usageGroup, from, '+', page))
    } catch (error) {
      // Redis lost its data since the group was read.
      if (isReply(error, 'NOGROUP')) return pending
      throw error
    }
    let last = ''
    for (const item of items) {
      last = String(asArray(item)[0])
      pending.add(last)
    }
    if (items.length < page) return pending
    from = `(${last}`
  }
}
