import { isIPv6 } from 'node:net'
import { BoundedMap } from '../bounded-map.ts'
import { type Reason, TollgateError } from '../errors.ts'

export interface CredentialGuardOptions {
  /** Wrong credentials that an address may send in a minute, and at once. 0: as many as it likes. */
  readonly perMinute: number
  /** Whether a credential was found good before, and needs no check that costs anything. */
  readonly isKnown: (credential: string) => boolean
  /** Unix milliseconds. */
  readonly clock: () => number
  /** Addresses held; beyond it, those that failed longest ago are forgotten. Default 50,000 (some 10 MB). */
  readonly maxAddresses?: number
}

/**
 * What a credential costs its address while it is looked at: nothing; one failure, beforehand; or nothing more, because the
 * same one is being looked at already.
 */
export type Charge = 'none' | 'charged' | 'shared'

/** Keeps whoever tries credentials from costing the others anything. */
export interface CredentialGuard {
  /**
   * To be asked before a credential is looked at. Throws CREDENTIAL_FAILURES for one that is not known to be good, from an
   * address that sent too many wrong ones. From an address that sent any, one that is not known is charged as wrong until it is
   * found good, so that many at once are no more than one after the other; the same one many times at once is charged once.
   */
  check(credential: string | undefined, address: string): Charge
  /** To be told what became of a credential: without an error it was found good. Needless for one that cost nothing and is. */
  settled(charge: Charge, credential: string | undefined, address: string, error?: unknown): void
  /** Addresses held, for tests of the ceiling and for metrics. */
  size(): number
}

/**
 * A bucket of failures for each address (of IPv6 each network of 64 bits, for that is what one customer gets): a wrong
 * credential takes one, a minute brings them back. From an address that has none left, only credentials that this process has
 * found good before are served; others are refused before any work, right or wrong, so that behind a shared address who is
 * known stays served. An address without failures costs a look into a map.
 */
export function createCredentialGuard(options: CredentialGuardOptions): CredentialGuard {
  const { perMinute, isKnown, clock, maxAddresses = 50_000 } = options
  const buckets = new BoundedMap<string, Bucket>(maxAddresses)
  /** Credentials that were charged and are being looked at, each with its network. */
  const charged = new Set<string>()

  function leftAt(bucket: Bucket, nowMs: number): number {
    return Math.min(perMinute, bucket.left + (Math.max(0, nowMs - bucket.atMs) * perMinute) / minuteMs)
  }

  return {
    check(credential, address) {
      if (buckets.size === 0 || credential === undefined) return 'none'
      const network = networkOf(address)
      const bucket = buckets.get(network)
      if (bucket === undefined) return 'none'
      const nowMs = clock()
      const left = leftAt(bucket, nowMs)
      if (left >= perMinute) {
        buckets.delete(network)
        return 'none'
      }
      if (isKnown(credential)) return 'none'
      if (charged.has(`${network} ${credential}`)) return 'shared'
      if (left < 1) throw tooMany(Math.ceil(((1 - left) * minuteMs) / perMinute))
      buckets.set(network, { left: left - 1, atMs: nowMs })
      charged.add(`${network} ${credential}`)
      return 'charged'
    },
    settled(charge, credential, address, error) {
      const isWrong = error instanceof TollgateError && wrong.has(error.reason)
      const network = networkOf(address)
      if (charge === 'charged') charged.delete(`${network} ${credential}`)
      const cost = (isWrong && charge === 'none' ? 1 : 0) - (!isWrong && charge === 'charged' ? 1 : 0)
      if (perMinute === 0 || cost === 0) return
      const nowMs = clock()
      const left = leftAt(buckets.get(network) ?? { left: perMinute, atMs: nowMs }, nowMs)
      buckets.set(network, { left: Math.max(0, Math.min(perMinute, left - cost)), atMs: nowMs })
    },
    size: () => buckets.size,
  }
}

interface Bucket {
  /** Failures left at that instant. */
  readonly left: number
  /** Unix milliseconds. */
  readonly atMs: number
}

const minuteMs = 60_000

/** What a guess fails by. Who holds a credential that was good once, or one of another gate's, does not guess. */
const wrong: ReadonlySet<Reason> = new Set(['CREDENTIAL_INVALID', 'TOKEN_MALFORMED', 'TOKEN_SIGNATURE'])

/** The first 64 bits of an IPv6 address; any other as it is. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.split('::')
  const left = head === '' ? [] : head.split(':')
  if (tail === undefined) return left.slice(0, 4).join(':')
  // An IPv4 address at the end stands for two groups.
  const right = tail === '' ? [] : tail.split(':').flatMap((group) => (group.includes('.') ? [group, group] : [group]))
  const zeros = Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0')
  return [...left, ...zeros, ...right].slice(0, 4).join(':')
}

function tooMany(retryAfterMs: number): TollgateError {
  const message =
    'Too many wrong credentials came from this address. Credentials that were not used here before are not looked at for now.'
  return new TollgateError('CREDENTIAL_FAILURES', message, {
    retryAfterMs,
    metadata: { retryAfterMs: String(retryAfterMs) },
  })
}
