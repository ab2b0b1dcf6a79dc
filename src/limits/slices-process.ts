/**
 * A process of its own that makes calls until it is killed: `node slices-process.ts <url of Redis> <limits as JSON> <file>`.
 * Each call takes one unit of each limit, and every fourth stays open. When one is admitted, before anything else, its
 * event's id and how many calls came from slices by then are a line of the file; "refused" is the line of one that is
 * refused, and it makes no more calls then. One of which nobody knows whether it is admitted is followed by the next.
 */
import { openSync, writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { connectRedis } from '../storage/redis.ts'
import { admission, FakeLedger, outcomeOf, settlement } from './conformance-support.ts'
import type { Limit } from './limits.ts'
import { createRedisLimits } from './redis-limits.ts'

const [url = '', json = '', path = ''] = process.argv.slice(2)
const file = openSync(path, 'a')
const all: readonly Limit[] = JSON.parse(json)
const log = pino({ level: 'silent' })
const redis = await connectRedis({ url, log, commandTimeoutMs: 10_000 })
const limits = await createRedisLimits({
  redis,
  instanceId: 'killed',
  // Nothing is in the ledger yet: what was used is in the stream.
  seed: new FakeLedger().seed,
  log,
  graceMs: 0,
  slicePercent: 50,
  sliceLeaseMs: 2_000,
})
let isRefused = false
await Promise.all(
  Array.from({ length: 48 }, async (_, worker) => {
    while (!isRefused) {
      const call = admission(
        all.map((limit) => ({ limit, amount: 1 })),
        { leaseMs: 1_000 },
      )
      // Undefined: one that was stopped with a run under way may find its holding gone.
      const outcome = await outcomeOf(limits, call)
      if (outcome === undefined) continue
      if (outcome === 'refused') {
        isRefused = true
        writeSync(file, 'refused\n')
        break
      }
      writeSync(file, `${call.ifAbandoned.id} ${limits.sliceSample().admitted}\n`)
      await delay(worker % 4)
      if (worker % 4 > 0) await limits.settle(settlement(call, [1, 1, 1]))
    }
  }),
)
