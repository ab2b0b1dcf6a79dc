import type { Logger } from 'pino'
import type { RedisClient } from '../storage/redis.ts'
import { asFacts } from './redis-scripts.ts'

/**
 * What Redis promises to keep, in words for health, for example "appendonly yes, appendfsync always". Warns when an
 * acknowledged settlement could be lost: without the append-only file, with an fsync that is not "always", or when Redis
 * may evict keys. Managed servers often forbid CONFIG; then it is "durability unknown".
 */
export async function checkDurability(redis: RedisClient, log: Logger): Promise<string> {
  const wanted = { appendonly: 'yes', appendfsync: 'always', 'maxmemory-policy': 'noeviction' }
  const found = new Map<string, string>()
  try {
    for (const name of Object.keys(wanted)) {
      const value = asFacts(await redis.call('config', 'get', name)).get(name)
      if (typeof value === 'string') found.set(name, value)
    }
  } catch {
    // Forbidden or renamed.
  }
  if (found.size === 0) {
    log.warn('redis does not tell whether it is durable: settled usage may be lost if it dies')
    return 'durability unknown'
  }
  const detail = [...found].map(([name, value]) => `${name} ${value}`).join(', ')
  const weak = Object.entries(wanted).filter(([name, value]) => found.has(name) && found.get(name) !== value)
  if (weak.length > 0) {
    const advice = weak.map(([name, value]) => `${name} ${value}`).join(', ')
    log.warn({ found: detail, advice }, 'redis may lose settled usage if it dies')
    return `not durable: ${detail}`
  }
  return detail
}
