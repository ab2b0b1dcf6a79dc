import { pause } from '../pause.ts'
import type { RedisClient } from '../storage/redis.ts'
import { RedisKeys } from './redis-keys.ts'
import { RedisScripts } from './redis-scripts.ts'

export interface ReplicasOptions {
  readonly redis: RedisClient
  /** Of this process, unique among the living. */
  readonly instanceId: string
  /** Begin of the key. Default "tg". */
  readonly keyPrefix?: string
  /**
   * How long a replica that is not heard of counts as living; longer than a pause and a command's timeout together.
   * Default 5 seconds.
   */
  readonly leaseMs?: number
  /** Pause between two announcements. Default 1 second. */
  readonly everyMs?: number
  /** Milliseconds that never go back. Default performance.now. */
  readonly clock?: () => number
}

/** How many replicas share the limits. */
export interface Replicas {
  /**
   * Living replicas, this one among them, as of the last time that Redis answered. 0 when the others cannot have counted
   * this one then: it was silent for longer than its lease before Redis stopped to answer.
   */
  count(): number
  /** Takes this replica out of the count, if Redis answers. */
  stop(): Promise<void>
}

/**
 * Announces this process to the other replicas once a second, and counts them. While Redis is away the count stays as it
 * was, and it does not fall before every replica had the time of a lease to come back: Redis answers some of them
 * earlier than others.
 */
export async function startReplicas(options: ReplicasOptions): Promise<Replicas> {
  const { redis, instanceId, keyPrefix, leaseMs = 5_000, everyMs = 1_000, clock = () => performance.now() } = options
  const scripts = await RedisScripts.load(redis)
  const key = new RedisKeys(keyPrefix).replicas()
  const stopping = new AbortController()
  let count = 0
  let heardAt = clock()
  let isAway = false
  let before = { count: 0, untilMs: 0 }

  async function announce(): Promise<void> {
    const living = Number(await scripts.run('announce', [key], [instanceId, String(leaseMs)]))
    heardAt = clock()
    if (isAway) before = { count, untilMs: heardAt + leaseMs }
    isAway = false
    count = heardAt < before.untilMs ? Math.max(living, before.count) : living
  }

  function missed(): void {
    if (!isAway && clock() - heardAt > leaseMs) count = 0
    isAway = true
  }

  async function loop(): Promise<void> {
    while (!stopping.signal.aborted) {
      await pause(everyMs, stopping.signal, { ref: false })
      if (!stopping.signal.aborted) await announce().catch(missed)
    }
  }

  await announce()
  const looping = loop()
  return {
    count: () => count,
    async stop() {
      stopping.abort()
      await looping
      // Where that fails, the lease says it.
      await scripts.run('announce', [key], [instanceId, '0']).catch(() => {})
    },
  }
}
