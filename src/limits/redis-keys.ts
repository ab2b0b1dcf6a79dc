/**
 * Names of everything in Redis. All of them carry one hash tag, so they sit in one slot of a cluster, and one script may
 * touch them all: a call takes limits of its key, its consumer, its organization and its service at once, and a service's
 * limit is shared by all organizations.
 *
 * The alternative was a tag for each organization. It spreads organizations over the masters of a cluster, but then a
 * limit that several organizations share cannot be taken in the same step, and a refusal by it would have to give back
 * what was taken already. One script for an admission costs Redis some ten microseconds (`bench/checks.ts`), so one
 * master carries tens of thousands of calls a second, and the other masters serve whatever else the cluster is for.
 */
export class RedisKeys {
  readonly #prefix: string
  readonly #base: string
  readonly #limits: string

  constructor(prefix = 'tg') {
    this.#prefix = prefix
    this.#base = `${prefix}:{limits}`
    this.#limits = `${this.#base}:l:`
  }

  limit(key: string): string {
    return this.#limits + key
  }

  /** For SCAN: every limit. */
  limitPattern(): string {
    return `${this.#base}:l:*`
  }

  /** The inverse of {@link limit}; undefined for a name of something else. */
  parseLimit(name: string): string | undefined {
    const begin = this.limit('')
    return name.startsWith(begin) ? name.slice(begin.length) : undefined
  }

  reservation(id: string): string {
    return `${this.reservations()}${id}`
  }

  /** What the name of every reservation begins with. */
  reservations(): string {
    return `${this.#base}:r:`
  }

  /** Ids of open reservations, by the end of their leases. */
  leases(): string {
    return `${this.#base}:leases`
  }

  /** Ids of what replicas hold in slices, by the ends: see `redis-slices.ts`. */
  holdings(): string {
    return `${this.#base}:holdings`
  }

  /** Units that a replica holds in slices, by limit. */
  holding(id: string): string {
    return `${this.#base}:h:${id}`
  }

  claim(key: string): string {
    return `${this.#base}:claim:${key}`
  }

  usage(): string {
    return `${this.#base}:usage`
  }

  /** Entries of the usage stream that could not be understood. */
  rejected(): string {
    return `${this.#base}:rejected`
  }

  /** Changes when Redis loses data: see `redis-generation.ts`. */
  generation(): string {
    return `${this.#base}:generation`
  }

  /** The living replicas of the gate, by the end of their leases. */
  replicas(): string {
    return `${this.#prefix}:{replicas}`
  }
}

/** The readers of the usage stream that carry events to the ledger. */
export const usageGroup = 'ledger'
