import type { Logger } from 'pino'
import { fetchTokenKeys } from './fetch-token-keys.ts'
import type { OutsideCallers } from './outside-callers.ts'
import type { Caller } from './principal.ts'
import type { TokenAlgorithm } from './token-algorithms.ts'
import type { ClaimNames } from './token-claims.ts'
import { createTokenKeys, type TokenKeysState } from './token-keys.ts'
import { createTokenVerifier } from './token-verifier.ts'

export interface TokensOptions {
  readonly issuers: readonly string[]
  readonly audiences: readonly string[]
  /** Undefined: discovery. */
  readonly keysUrl: string | undefined
  readonly keysStaleSeconds: number
  readonly allowHttp: boolean
  readonly algorithms: readonly TokenAlgorithm[]
  readonly clockSkewSeconds: number
  readonly claims: ClaimNames
  /** Makes callers of those whom tokens name. */
  readonly callerOf: OutsideCallers
  /** Unix milliseconds. */
  readonly clock: () => number
  readonly log: Logger
}

/** JSON Web Tokens as credentials. */
export interface Tokens {
  /** Who a token speaks for; throws what verifier and mapping throw. */
  verify(token: string): Promise<Caller>
  /** Whether a token was found good before, and needs no check that costs anything. */
  isKnown(token: string): boolean
  /** Keys of each issuer. */
  states(): readonly TokenKeysState[]
}

/** Puts together what the trusted issuers need. Nothing is fetched before the first token. */
export function createTokens(options: TokensOptions): Tokens {
  const { issuers, keysUrl, allowHttp, callerOf, clock, log } = options
  const keys = new Map(
    issuers.map((issuer) => [
      issuer,
      createTokenKeys({
        issuer,
        fetchKeys: () => fetchTokenKeys({ issuer, keysUrl, allowHttp }),
        usableForMs: options.keysStaleSeconds * 1000,
        clock,
        log,
      }),
    ]),
  )
  const verifier = createTokenVerifier({ ...options, issuers: keys })
  return {
    verify: async (token) => callerOf(await verifier.verify(token)),
    isKnown: verifier.isKnown,
    states: () => [...keys.values()].map((each) => each.state()),
  }
}
