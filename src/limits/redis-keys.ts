import { crc32 } from 'node:zlib'

/**
 * Names of everything in Redis. An organization belongs to one of {@link shards} shards for ever, and all keys of a
 * shard carry its number as hash tag: limits, reservations, leases and the usage stream of an organization sit in one
 * slot of a cluster, so one script may touch them all.
 */
export class RedisKeys {
  readonly #prefix: string

  constructor(prefix = 'tg') {
    this.#prefix = prefix
  }

  limit(organizationId: string, key: string): string {
    return `${this.#of(shardOf(organizationId))}:l:${organizationId}:${key}`
  }

  /** For SCAN: the limits of every organization, on whatever shard. */
  limitPattern(): string {
    return `${this.#prefix}:{*}:l:*`
  }

  /** The inverse of {@link limit}; undefined for a name of something else. */
  parseLimit(name: string): { organizationId: string; key: string } | undefined {
    const rest = name.startsWith(`${this.#prefix}:{`) ? name.slice(this.#prefix.length) : ''
    const [, organizationId, key] = /^:\{\d+\}:l:([^:]+):(.+)$/.exec(rest) ?? []
    return organizationId === undefined || key === undefined ? undefined : { organizationId, key }
  }

  reservation(shard: number, id: string): string {
    return `${this.reservations(shard)}${id}`
  }

  reservations(shard: number): string {
    return `${this.#of(shard)}:r:`
  }

  leases(shard: number): string {
    return `${this.#of(shard)}:leases`
  }

  usage(shard: number): string {
    return `${this.#of(shard)}:usage`
  }

  /** Entries of the usage stream that could not be understood. */
  rejected(shard: number): string {
    return `${this.#of(shard)}:rejected`
  }

  #of(shard: number): string {
    return `${this.#prefix}:{${shard}}`
  }
}

/** The readers of the usage streams that carry events to the ledger. */
export const usageGroup = 'ledger'

/** Changing it moves every organization to another key: reservations and streams must be drained first. */
export const shards = 16

export const allShards: readonly number[] = Array.from({ length: shards }, (_, shard) => shard)

export function shardOf(organizationId: string): number {
  return crc32(organizationId) % shards
}
