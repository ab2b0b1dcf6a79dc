/**
 * Reads everything that the books need from Redis and changes nothing: SCAN, GET, ZSCAN, XRANGE, XINFO and XPENDING, in
 * pages, so that no command holds the server for long.
 *
 * A call moves from reservation to usage stream to ledger. It is read in that order, so that nothing can slip past: who
 * moves on meanwhile is seen twice, never not at all. Open reservations are found by their leases, because the keys of
 * reservations are mostly memories of settled calls, millions of them.
 */
import { Cluster } from 'ioredis'
import type { RedisClient } from '../storage/redis.ts'
import { decodeEvent } from './event-codec.ts'
import type { LimitsReading, LoggedEvent, OpenReservation, QuotaCounter } from './limits-reading.ts'
import { allShards, RedisKeys, shardOf, usageGroup } from './redis-keys.ts'
import { asArray, asFacts, isReply } from './redis-scripts.ts'
import { parseQuotaKey } from './tiers.ts'

/** Counters, open reservations and usage streams of all shards. Throws what Redis or its connection throws. */
export async function readRedisLimits(redis: RedisClient, keys = new RedisKeys()): Promise<LimitsReading> {
  const counters = await readCounters(redis, keys)
  const reservations: OpenReservation[] = []
  const events: LoggedEvent[] = []
  let unreadable = 0
  for (const shard of allShards) {
    const open = await readReservations(redis, keys, shard)
    const stream = await readStream(redis, keys.usage(shard))
    reservations.push(...open.reservations)
    events.push(...stream.events)
    unreadable += open.unreadable + stream.unreadable
    unreadable += Number(await redis.call('xlen', keys.rejected(shard)))
  }
  return { counters, reservations, events, unreadable }
}

/** Entries of a page: a server answers each in well under a millisecond's worth of entries, and a page fits in memory. */
const page = 500

async function readCounters(redis: RedisClient, keys: RedisKeys): Promise<QuotaCounter[]> {
  const found = new Map<string, { readonly shard: number; readonly quota: Omit<QuotaCounter, 'tokens'> }>()
  for (const node of redis instanceof Cluster ? redis.nodes('master') : [redis]) {
    let cursor = '0'
    do {
      const [next, names] = asArray(await node.call('scan', cursor, 'MATCH', keys.limitPattern(), 'COUNT', 2 * page))
      for (const name of asArray(names)) {
        const limit = typeof name === 'string' ? keys.parseLimit(name) : undefined
        const quota = limit === undefined ? undefined : parseQuotaKey(limit.key)
        if (typeof name !== 'string' || limit === undefined || quota === undefined) continue
        found.set(name, { shard: shardOf(limit.organizationId), quota })
      }
      cursor = String(next)
    } while (cursor !== '0')
  }
  const counters: QuotaCounter[] = []
  for (const shard of allShards) {
    const here = [...found].filter(([, entry]) => entry.shard === shard)
    for (let from = 0; from < here.length; from += page) {
      const part = here.slice(from, from + page)
      const values = asArray(await redis.call('mget', ...part.map(([name]) => name)))
      part.forEach(([name, { quota }], index) => {
        const value = values[index]
        if (typeof value !== 'string') return
        if (!/^-?\d+$/.test(value)) throw new Error(`the counter ${name} of Redis does not hold a number`)
        counters.push({ ...quota, tokens: Number(value) })
      })
    }
  }
  return counters
}

async function readReservations(
  redis: RedisClient,
  keys: RedisKeys,
  shard: number,
): Promise<{ reservations: OpenReservation[]; unreadable: number }> {
  const ids = new Set<string>()
  let cursor = '0'
  do {
    const [next, pairs] = asArray(await redis.call('zscan', keys.leases(shard), cursor, 'COUNT', page))
    for (const id of asFacts(pairs).keys()) ids.add(id)
    cursor = String(next)
  } while (cursor !== '0')
  const names = [...ids].map((id) => keys.reservation(shard, id))
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
  if (event === undefined) return undefined
  const holds: QuotaCounter[] = []
  for (const taken of asArray(parseJson(plan))) {
    const [kind, name, , , amount] = asArray(taken)
    const limit = kind === 'p' && typeof name === 'string' ? keys.parseLimit(name) : undefined
    const quota = limit === undefined ? undefined : parseQuotaKey(limit.key)
    if (quota !== undefined) holds.push({ ...quota, tokens: Number(amount) })
  }
  return { event, holds }
}

/**
 * Entries first, then what is pending, then (by the caller) the ledger: an entry that is neither pending nor still to be
 * delivered was acknowledged before the ledger is read, so the ledger must have it.
 */
async function readStream(redis: RedisClient, stream: string): Promise<{ events: LoggedEvent[]; unreadable: number }> {
  const entries: { id: string; json: unknown }[] = []
  for (let from = '-'; ; from = `(${entries.at(-1)?.id ?? ''}`) {
    const items = asArray(await redis.call('xrange', stream, from, '+', 'COUNT', page))
    for (const item of items) {
      const [id, fields] = asArray(item)
      entries.push({ id: String(id), json: asFacts(fields).get('event') })
    }
    if (items.length < page) break
  }
  const delivered = entries.length === 0 ? undefined : await lastDelivered(redis, stream)
  const pending = delivered === undefined ? new Set() : await readPending(redis, stream)
  const events: LoggedEvent[] = []
  let unreadable = 0
  for (const { id, json } of entries) {
    const event = typeof json === 'string' ? decodeEvent(json) : undefined
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

/** Order of stream ids, "milliseconds-number". */
function isAfter(id: string, other: string): boolean {
  const [ms = 0, number = 0] = id.split('-').map(Number)
  const [otherMs = 0, otherNumber = 0] = other.split('-').map(Number)
  return ms > otherMs || (ms === otherMs && number > otherNumber)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
