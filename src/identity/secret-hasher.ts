import argon2 from 'argon2'
import { TollgateError } from '../errors.ts'

/** Argon2id behind a gate: few at a time, and a bounded line of those who wait. */
export interface SecretHasher {
  /** Hash in PHC string format with a fresh salt. Throws CREDENTIAL_CHECK_BUSY when the line is full. */
  hash(secret: string): Promise<string>
  /** Whether the hash is this secret's. Throws CREDENTIAL_CHECK_BUSY when the line is full. */
  verify(hash: string, secret: string): Promise<boolean>
}

export interface SecretHasherOptions {
  /**
   * How many run at once. Default 2: one costs 10-20 ms of a core and 19 MiB, on libuv's threads, of which there are
   * four and which file and name look-ups need too.
   */
  readonly concurrency?: number
  /** How many may wait. Default 256, some 2 s of work; the next one is refused. */
  readonly maxWaiting?: number
}

/** Argon2id with 19 MiB, two passes, one lane: OWASP's recommendation for passwords; ours are 256 random bits. */
export function createSecretHasher(options: SecretHasherOptions = {}): SecretHasher {
  const concurrency = options.concurrency ?? 2
  const maxWaiting = options.maxWaiting ?? 256
  const waiting: (() => void)[] = []
  let running = 0

  async function gated<T>(work: () => Promise<T>): Promise<T> {
    if (running < concurrency) running++
    else {
      if (waiting.length >= maxWaiting) throw busy()
      // The one who leaves hands its place on, so `running` stays as it is.
      await new Promise<void>((enter) => waiting.push(enter))
    }
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running--
      else next()
    }
  }

  function busy(): TollgateError {
    const retryAfterMs = Math.ceil((maxWaiting / concurrency) * expectedMs)
    return new TollgateError('CREDENTIAL_CHECK_BUSY', 'Too many credentials are being checked. Try again shortly.', {
      retryAfterMs,
      metadata: { retryAfterMs: String(retryAfterMs) },
    })
  }

  return {
    hash: (secret) => gated(() => argon2.hash(secret, parameters)),
    verify: (hash, secret) => gated(() => argon2.verify(hash, secret)),
  }
}

const parameters = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const

/** A cautious guess at one check's duration, for `retryAfterMs`. */
const expectedMs = 20
