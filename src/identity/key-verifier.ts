import { hash, randomBytes } from 'node:crypto'
import { BoundedMap } from '../bounded-map.ts'
import { TollgateError } from '../errors.ts'
import type { KeyTier } from '../limits/call-limits.ts'
import type { ConsumerStatus } from '../registry/records.ts'
import { keyIdIn, parseKey, secretTag } from './key-format.ts'
import type { KeyScopes } from './key-scopes.ts'
import type { Caller } from './principal.ts'
import type { SecretHasher } from './secret-hasher.ts'

/** A stored key with what is needed of its consumer. */
export interface KeyRecord {
  readonly id: string
  readonly consumerId: string
  readonly organizationId: string
  readonly consumerStatus: ConsumerStatus
  /** Argon2id of the whole key, PHC string format. */
  readonly secretHash: string
  /** {@link secretTag} of the whole key. */
  readonly secretTag: number
  /** Unix milliseconds; undefined means never. */
  readonly expiresAtMs: number | undefined
  /** Unix milliseconds; undefined while it is good. */
  readonly revokedAtMs: number | undefined
  /** Undefined: it is not narrowed. */
  readonly scopes: KeyScopes | undefined
  /** Undefined: it has no limits of its own by a tier. */
  readonly tier: KeyTier | undefined
}

export interface KeyVerifierOptions {
  /** Reads a record; undefined when there is none. */
  readonly loadKey: (keyId: string) => Promise<KeyRecord | undefined>
  readonly hasher: Pick<SecretHasher, 'verify'>
  /** Unix milliseconds. */
  readonly clock: () => number
  /** Keys the digests in memory; default 32 random bytes of this process, so that a memory dump has no use elsewhere. */
  readonly pepper?: string
  /** Key records held. Default 100,000 (some 60 MB). */
  readonly maxKeys?: number
  /** Wrong credentials held, each of unknown ids and of wrong secrets. Default 10,000. */
  readonly maxRefused?: number
  /** How long an id stays unknown without being looked up again, in milliseconds. Default 5,000. */
  readonly unknownForMs?: number
}

/** Whether a key is good, whoever brings it. */
export interface KeyStanding {
  /** Why it is refused; undefined while it is good. */
  readonly refusal: TollgateError | undefined
  /** Unix milliseconds; undefined means never. */
  readonly expiresAtMs: number | undefined
}

export interface KeyVerifier {
  /**
   * Who the key speaks for. Throws CREDENTIAL_INVALID (malformed, unknown id and wrong secret look the same),
   * CREDENTIAL_REVOKED, CREDENTIAL_EXPIRED, CONSUMER_INACTIVE, CREDENTIAL_CHECK_BUSY, or what `loadKey` throws.
   */
  verify(credential: string): Promise<Caller>
  /**
   * The same from memory, without a wait: undefined for everything but a key that this process found good before and that
   * nothing is known against.
   */
  recall(credential: string): Caller | undefined
  /** Whether this process found the key good before, and nothing is known against it. Costs 2 µs, and no I/O. */
  isKnown(credential: string): boolean
  /** How a key stands, as far as this process knows; a record that is stale is read first. Throws what `loadKey` throws. */
  standingOf(keyId: string): Promise<KeyStanding>
  /** To be called when the control plane changed: each record is read again before its next use. */
  invalidate(): void
  /** Entries held, for tests of the ceilings and for metrics. */
  size(): { keys: number; unknown: number; wrong: number }
}

/**
 * Verifies API keys. A key's way, cheapest step first:
 *
 * 1. form and checksum: a typo ends here;
 * 2. the record, from memory, or once from the store per change of the control plane; if the store cannot be read, a
 *    record that is in memory goes on to be used (nobody can revoke anything while the store is away);
 * 3. a digest of pepper and key against that of the last good verification: the usual end, 1 µs;
 * 4. the tag, against which 65,535 of 65,536 wrong secrets fail;
 * 5. Argon2id, once a key and process: one check for all callers that bring the same secret, few at a time.
 *
 * A one-shot SHA-256 over a random pepper and the key is the digest: `createHmac` does the same with 12.8 µs and much
 * garbage instead of 0.3 µs, and what it protects against, extension, is impossible with a fixed length. How long the
 * comparison takes says nothing to a guesser, who cannot know the digest of what he sends without the pepper.
 */
export function createKeyVerifier(options: KeyVerifierOptions): KeyVerifier {
  const { loadKey, hasher, clock, unknownForMs = 5_000, maxRefused = 10_000 } = options
  const pepper = options.pepper ?? randomBytes(32).toString('base64')
  const entries = new BoundedMap<string, Entry>(options.maxKeys ?? 100_000)
  /** Key id to the instant until which it counts as unknown. */
  const unknown = new BoundedMap<string, number>(maxRefused)
  /** Digest of a wrong key to the hash that it was checked against. */
  const wrong = new BoundedMap<string, string>(maxRefused)
  const loads = new Map<string, Promise<Entry | undefined>>()
  const checks = new Map<string, Promise<boolean>>()
  let generation = 0

  async function verify(credential: string): Promise<Caller> {
    const parsed = parseKey(credential)
    if (parsed === undefined) throw invalid()
    const known = currentEntry(parsed.keyId)
    const entry = known instanceof Promise ? await known : known
    if (entry === undefined) throw invalid()
    const digest = digestOf(credential)
    if (entry.digest !== digest) {
      await checkSecret(entry, credential, digest)
    }
    // Only whoever holds the secret learns the state of its key.
    const refusal = refusalOf(entry.record, clock())
    if (refusal !== undefined) throw refusal
    return entry.principal
  }

  /** That the digest is the one of a good key says that it has its form, too. */
  function recall(credential: string): Caller | undefined {
    const entry = entries.get(keyIdIn(credential))
    if (entry?.digest === undefined || isStale(entry) || entry.digest !== digestOf(credential)) return undefined
    return refusalOf(entry.record, clock()) === undefined ? entry.principal : undefined
  }

  /** From memory without a wait where it can be. */
  function currentEntry(keyId: string): Entry | Promise<Entry | undefined> {
    const entry = entries.get(keyId)
    return entry === undefined || isStale(entry) ? loadOnce(keyId, entry) : entry
  }

  function isStale(entry: Entry): boolean {
    return entry.generation !== generation && entry.retryAtMs <= clock()
  }

  function digestOf(credential: string): string {
    return hash('sha256', pepper + credential)
  }

  function loadOnce(keyId: string, stale: Entry | undefined): Promise<Entry | undefined> {
    const unknownUntil = unknown.get(keyId)
    if (unknownUntil !== undefined && clock() < unknownUntil) return Promise.resolve(undefined)
    const flight = loads.get(keyId)
    if (flight !== undefined) return flight
    const load = loadEntry(keyId, stale, generation).finally(() => {
      if (loads.get(keyId) === load) loads.delete(keyId)
    })
    loads.set(keyId, load)
    return load
  }

  async function loadEntry(keyId: string, stale: Entry | undefined, asOf: number): Promise<Entry | undefined> {
    let record: KeyRecord | undefined
    try {
      record = await loadKey(keyId)
    } catch (error) {
      if (stale === undefined) throw error
      stale.retryAtMs = clock() + retryLoadMs
      return stale
    }
    // One that began later, and may know of a revocation, ended before this one.
    const newer = entries.get(keyId)
    if (newer !== undefined && newer.generation > asOf) return newer
    if (record === undefined) {
      entries.delete(keyId)
      if (asOf === generation) unknown.set(keyId, clock() + unknownForMs)
      return undefined
    }
    const { consumerId, organizationId, secretHash, scopes, tier } = record
    const entry: Entry = {
      record,
      generation: asOf,
      retryAtMs: 0,
      digest: stale?.record.secretHash === secretHash ? stale.digest : undefined,
      principal: Object.freeze({
        kind: 'key',
        subject: `key:${keyId}`,
        roles: keyRoles,
        keyId,
        consumerId,
        organizationId,
        ...(scopes !== undefined && { scopes }),
        ...(tier !== undefined && { keyTier: tier }),
      }),
    }
    entries.set(keyId, entry)
    return entry
  }

  async function checkSecret(entry: Entry, credential: string, digest: string): Promise<void> {
    const { secretHash, secretTag: expectedTag } = entry.record
    if (secretTag(credential) !== expectedTag) throw invalid()
    if (wrong.get(digest) === secretHash) throw invalid()
    // The digest covers the key id: it stands for both.
    const flightKey = digest + secretHash
    let check = checks.get(flightKey)
    if (check === undefined) {
      check = hasher.verify(secretHash, credential).finally(() => checks.delete(flightKey))
      checks.set(flightKey, check)
    }
    if (await check) entry.digest = digest
    else {
      wrong.set(digest, secretHash)
      throw invalid()
    }
  }

  return {
    verify,
    recall,
    async standingOf(keyId) {
      const entry = await currentEntry(keyId)
      if (entry === undefined) return { refusal: invalid(), expiresAtMs: undefined }
      const { record } = entry
      return { refusal: refusalOf(record, clock()), expiresAtMs: record.expiresAtMs }
    },
    isKnown(credential) {
      const parsed = parseKey(credential)
      const digest = parsed && entries.get(parsed.keyId)?.digest
      return digest !== undefined && digest === digestOf(credential)
    },
    invalidate() {
      generation++
      unknown.clear()
      // A read that began before the change may not know of it: the next caller starts another one.
      loads.clear()
    },
    size: () => ({ keys: entries.size, unknown: unknown.size, wrong: wrong.size }),
  }
}

interface Entry {
  readonly record: KeyRecord
  /** The control plane's generation that the record was read in. */
  readonly generation: number
  /** Unix milliseconds until which a record that could not be read again is used as it is. */
  retryAtMs: number
  /** Of the key that was found right; undefined before. */
  digest: string | undefined
  readonly principal: Caller
}

/** Pause between attempts to read a record again, so that calls do not wait for a store that is away. */
const retryLoadMs = 1_000

const keyRoles = Object.freeze(['consumer'] as const)

function refusalOf(record: KeyRecord, nowMs: number): TollgateError | undefined {
  if (record.revokedAtMs !== undefined) {
    return new TollgateError('CREDENTIAL_REVOKED', `API key ${record.id} is revoked. Create a new one.`, {
      metadata: { keyId: record.id, consumerId: record.consumerId },
    })
  }
  if (record.expiresAtMs !== undefined && record.expiresAtMs <= nowMs) {
    const expireTime = new Date(record.expiresAtMs).toISOString()
    return new TollgateError('CREDENTIAL_EXPIRED', `API key ${record.id} expired at ${expireTime}. Create a new one.`, {
      metadata: { keyId: record.id, consumerId: record.consumerId, expireTime },
    })
  }
  if (record.consumerStatus !== 'active') {
    const message = `Consumer ${record.consumerId} is ${record.consumerStatus}. An administrator can activate it.`
    return new TollgateError('CONSUMER_INACTIVE', message, {
      metadata: { keyId: record.id, consumerId: record.consumerId, status: record.consumerStatus },
    })
  }
  return undefined
}

/** One text for malformed keys, unknown ids and wrong secrets: it tells a guesser nothing. */
export function invalid(): TollgateError {
  return new TollgateError('CREDENTIAL_INVALID', 'The credential is not valid. Check it for typing errors.')
}
