import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { StorageLog } from './postgres.ts'

/** One server or a cluster: both answer {@link Redis.call}, and route by the first key. */
export type RedisClient = Redis | Cluster

export interface RedisConnectOptions {
  /** `redis://` or `rediss://`; several, separated by commas, are the seed nodes of a cluster. */
  readonly url: string
  readonly log: StorageLog
  /** Milliseconds after which a command that was not answered fails. Default 1000. */
  readonly commandTimeoutMs?: number
  /** Milliseconds for one attempt to connect. Default 2000. */
  readonly connectTimeoutMs?: number
}

/**
 * Connects, and resolves when commands can be sent; rejects when the first attempt fails,
 * or is not ready within twice `connectTimeoutMs`. Later losses of the connection
 * are repaired in the background, with growing pauses up to two seconds.
 *
 * While there is no connection, commands fail at once: there is no offline queue, and nothing is sent again on its own,
 * because only the caller knows whether repeating is harmless. Neither logs nor errors contain the URL's credentials.
 */
export async function connectRedis(options: RedisConnectOptions): Promise<RedisClient> {
  const urls = options.url.split(',').map((url) => url.trim())
  const connectTimeoutMs = options.connectTimeoutMs ?? 2_000
  const common = {
    commandTimeout: options.commandTimeoutMs ?? 1_000,
    connectTimeout: connectTimeoutMs,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // Replies are parsed by hand and look the same from every server since 6.2 in the older protocol.
    protocol: 2,
    lazyConnect: true,
  } satisfies RedisOptions
  const retryPause = (times: number) => Math.min(50 * 2 ** Math.min(times, 6), 2_000) * (0.75 + Math.random() / 4)
  const [first = ''] = urls
  const redis: RedisClient =
    urls.length > 1
      ? new Cluster(urls, {
          redisOptions: common,
          enableOfflineQueue: false,
          lazyConnect: true,
          clusterRetryStrategy: retryPause,
          // Scripts write: a replica could only refuse them.
          scaleReads: 'master',
        })
      : new Redis(first, { ...common, retryStrategy: retryPause })
  logChanges(redis, options.log, urls.map(withoutCredentials).join(','))
  // A cluster that is not ready retries for ever on its own.
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error('no answer in time')), 2 * connectTimeoutMs)
  try {
    const connecting = redis.connect()
    // Told by the race below; later it is of no interest.
    connecting.catch(() => {})
    await Promise.race([connecting, late.promise])
  } catch (error) {
    redis.disconnect()
    throw new Error(`Redis at ${urls.map(withoutCredentials).join(',')} cannot be reached: ${describe(error)}`)
  } finally {
    clearTimeout(timer)
  }
  return redis
}

/** One line when the connection is lost and one when it is back, not one for each attempt. */
function logChanges(redis: RedisClient, log: StorageLog, server: string): void {
  let lost = false
  redis.on('error', (error: unknown) => {
    if (!lost) log.warn({ server, problem: describe(error) }, 'redis connection lost')
    lost = true
  })
  redis.on('ready', () => {
    if (lost) log.info({ server }, 'redis connection is back')
    lost = false
  })
}

/** Address of a server as it may be shown. */
function withoutCredentials(url: string): string {
  try {
    const { protocol, host, pathname } = new URL(url)
    return `${protocol}//${host}${pathname === '/' ? '' : pathname}`
  } catch {
    return '(not a URL)'
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown problem'
  if (error.message !== '') return error.message
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
