import { type CryptoKey, createLocalJWKSet, errors, type JSONWebKeySet, type JWSHeaderParameters } from 'jose'
import { TollgateError } from '../errors.ts'
import { describeError, type StorageLog } from '../storage/postgres.ts'

export interface TokenKeysOptions {
  readonly issuer: string
  /** Reads the keys; rejects in bounded time when it cannot. */
  readonly fetchKeys: () => Promise<JSONWebKeySet>
  /** How long after they were read keys are used while they cannot be read again, in milliseconds. */
  readonly usableForMs: number
  /** Unix milliseconds. */
  readonly clock: () => number
  readonly log: StorageLog
}

/** The public keys of one issuer. */
export interface TokenKeys {
  /**
   * Number of the set in use, which moves when the set does; undefined when there is none that may be used. Never waits:
   * a set that is due to be read again is read beside the calls.
   */
  generation(): number | undefined
  /**
   * The key that a token's header names. One that is not in the set makes the set be read again, at most every
   * 2 seconds. Throws TOKEN_KEY_UNKNOWN, and TOKEN_KEYS_UNAVAILABLE when nobody can tell.
   */
  keyOf(header: JWSHeaderParameters): Promise<CryptoKey>
  /** For health and metrics. */
  state(): TokenKeysState
}

export interface TokenKeysState {
  readonly issuer: string
  /** Keys in use; 0 when there are none that may be used. */
  readonly keys: number
  /** Unix milliseconds; undefined before the first success. */
  readonly readAtMs: number | undefined
  /** Why they could not be read the last time; undefined when they could. */
  readonly failing: string | undefined
}

/** Age at which a set is read again: the time that a key which its issuer withdrew goes on being good. */
export const refreshAfterMs = 300_000

/** Pause after an attempt, when a key is missed: a new key is served soon, and junk makes no more requests than this. */
const unknownKeyPauseMs = 2_000

/** Pause after a failed attempt. */
const retryPauseMs = 1_000

/**
 * Keeps the keys of one issuer, read when a token first needs them. All callers share one fetch. While the issuer is
 * away, the keys that are there go on being used for `usableForMs`; after that a withdrawn key would be good for too
 * long, and nothing passes.
 */
export function createTokenKeys(options: TokenKeysOptions): TokenKeys {
  const { issuer, fetchKeys, usableForMs, clock, log } = options
  let set: KeySet | undefined
  let attemptedAtMs = Number.NEGATIVE_INFINITY
  let failing: string | undefined
  let flight: Promise<void> | undefined

  function refresh(): Promise<void> {
    flight ??= read().finally(() => {
      flight = undefined
    })
    return flight
  }

  async function read(): Promise<void> {
    attemptedAtMs = clock()
    try {
      const keys = await fetchKeys()
      const text = JSON.stringify(keys)
      const isSame = set?.text === text
      if (set !== undefined && !isSame)
        log.info({ issuer, keys: keys.keys.length }, 'the keys of a token issuer changed')
      set = {
        text,
        generation: (set?.generation ?? 0) + Number(!isSame),
        readAtMs: clock(),
        count: keys.keys.length,
        find: isSame && set !== undefined ? set.find : createLocalJWKSet(keys),
      }
      if (failing !== undefined) log.info({ issuer }, 'the keys of a token issuer can be read again')
      failing = undefined
    } catch (error) {
      const why = describeError(error)
      // Attempts go on, every second while there are calls.
      if (why !== failing) log.error({ issuer, reason: why }, 'the keys of a token issuer cannot be read')
      failing = why
    }
  }

  function usable(): KeySet | undefined {
    return set !== undefined && clock() - set.readAtMs < usableForMs ? set : undefined
  }

  function isPast(pauseMs: number): boolean {
    return clock() - attemptedAtMs >= pauseMs
  }

  function unavailable(): TollgateError {
    const message = `The keys of the token issuer ${issuer} cannot be read at the moment. Try again shortly.`
    return new TollgateError('TOKEN_KEYS_UNAVAILABLE', message, {
      metadata: { issuer },
      retryAfterMs: retryPauseMs,
    })
  }

  return {
    generation() {
      const current = usable()
      const isDue = current !== undefined && clock() - current.readAtMs >= refreshAfterMs
      if (isDue && isPast(retryPauseMs)) void refresh()
      return current?.generation
    },
    async keyOf(header) {
      if (usable() === undefined && (flight !== undefined || isPast(retryPauseMs))) await refresh()
      const current = usable()
      if (current === undefined) throw unavailable()
      const key = await find(current, header)
      if (key !== undefined) return key
      if (flight !== undefined || isPast(unknownKeyPauseMs)) await refresh()
      // Without a look at the newest set nobody knows that there is no such key.
      if (failing !== undefined) throw unavailable()
      const renewed = usable()
      const found = renewed === undefined || renewed === current ? undefined : await find(renewed, header)
      if (found === undefined) throw unknownKey(issuer, header)
      return found
    },
    state: () => ({ issuer, keys: usable()?.count ?? 0, readAtMs: set?.readAtMs, failing }),
  }
}

interface KeySet {
  /** What was read, to know whether something changed. */
  readonly text: string
  readonly generation: number
  /** Unix milliseconds. */
  readonly readAtMs: number
  readonly count: number
  readonly find: ReturnType<typeof createLocalJWKSet>
}

/** The one key that fits the header's "kid" and "alg"; undefined when none does, or several do. */
async function find(set: KeySet, header: JWSHeaderParameters): Promise<CryptoKey | undefined> {
  try {
    return await set.find(header)
  } catch (error) {
    if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) return undefined
    throw error
  }
}

function unknownKey(issuer: string, { kid, alg }: JWSHeaderParameters): TollgateError {
  const message =
    typeof kid === 'string'
      ? `${issuer} has no key ${JSON.stringify(kid.slice(0, 100))} for ${alg}. Get a new token.`
      : `The token names no key ("kid"), and not exactly one key of ${issuer} is for ${alg}.`
  return new TollgateError('TOKEN_KEY_UNKNOWN', message, { metadata: { issuer } })
}
