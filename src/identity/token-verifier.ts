import { hash, randomBytes } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from 'jose'
import { BoundedMap } from '../bounded-map.ts'
import { TollgateError } from '../errors.ts'
import type { TokenAlgorithm } from './token-algorithms.ts'
import { type ClaimNames, type IdentityClaims, readClaims } from './token-claims.ts'
import type { TokenKeys } from './token-keys.ts'

export interface TokenVerifierOptions {
  /** Keys of each issuer, by the "iss" of its tokens. */
  readonly issuers: ReadonlyMap<string, TokenKeys>
  /** A token must be for one of them. */
  readonly audiences: readonly string[]
  readonly algorithms: readonly TokenAlgorithm[]
  /** How far the issuer's clock may be from ours. */
  readonly clockSkewSeconds: number
  readonly claims: ClaimNames
  /** Unix milliseconds. */
  readonly clock: () => number
  /** Verified tokens held. Default 10,000 (some 5 MB). */
  readonly maxTokens?: number
}

/** Whom a token names, as its issuer vouches. */
export interface TokenIdentity {
  readonly issuer: string
  readonly subject: string
  readonly claims: IdentityClaims
}

export interface TokenVerifier {
  /** Whom the token names. Throws a TOKEN_… reason. */
  verify(token: string): Promise<TokenIdentity>
  /** Whether this process found the token good before, and it still is. Costs 5 µs, and no I/O. */
  isKnown(token: string): boolean
}

/** Whether a credential is meant to be a token: two dots in it, or the beginning that every JWT has (`{"` in base64url). */
export function looksLikeToken(credential: string): boolean {
  return credential.startsWith('eyJ') || /^[^.]*\.[^.]*\.[^.]*$/.test(credential)
}

/**
 * Verifies JSON Web Tokens (RFC 7519) as RFC 8725 wants it: the gate chooses algorithm and key, never the token; issuer,
 * audience, expiry and subject must be there. There is a reason of its own for each defect. What the claims say is
 * told only of tokens whose signature is good.
 *
 * A token that was found good is known again by a digest, as long as its time lasts and its issuer's keys are the same: 3 to
 * 6 µs instead of 180 (EdDSA), 250 (RS256) or 380 (ES256). The digest is keyed with random bytes of this process, and no
 * token is kept.
 */
export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  const { issuers, clock, clockSkewSeconds } = options
  const pepper = randomBytes(32).toString('base64')
  const known = new BoundedMap<string, Known>(options.maxTokens ?? 10_000)

  async function verify(token: string): Promise<TokenIdentity> {
    const digest = digestOf(token)
    const entry = knownBy(digest)
    if (entry !== undefined) {
      if (clock() >= entry.endsAtMs) throw expired(entry.endsAtMs / 1000 - clockSkewSeconds)
      if (entry.identity !== undefined) return entry.identity
    }
    const { issuer, keys } = issuerOf(token)
    // Before the keys are used: a set that comes while this token is verified may be without its key.
    const generation = keys.generation()
    const remember = (identity: TokenIdentity | undefined, exp = 0): void => {
      const endsAtMs = (exp + clockSkewSeconds) * 1000
      if (generation !== undefined) known.set(digest, { identity, keys, generation, endsAtMs })
    }
    let claims: JWTPayload
    try {
      claims = await verified(token, issuer, keys)
    } catch (error) {
      // What expired is often sent again and again. All else of it was good.
      if (error instanceof errors.JWTExpired) remember(undefined, error.payload.exp)
      throw refusalOf(error, options.audiences)
    }
    const { sub } = claims
    if (typeof sub !== 'string' || sub === '' || sub.length > maxSubjectLength) {
      const message = `The token must name its subject ("sub") with 1 to ${maxSubjectLength} characters.`
      throw new TollgateError('TOKEN_SUBJECT', message)
    }
    const identity = { issuer, subject: sub, claims: readClaims(claims, options.claims) }
    remember(identity, claims.exp)
    return identity
  }

  function digestOf(token: string): string {
    return hash('sha256', pepper + token, 'base64')
  }

  function knownBy(digest: string): Known | undefined {
    const entry = known.get(digest)
    // Undefined, when the keys are too old to be used, is the generation of nothing that is known.
    return entry !== undefined && entry.keys.generation() === entry.generation ? entry : undefined
  }

  /** What the token says of itself, unverified; decides only whose keys and which algorithm it must pass. */
  function issuerOf(token: string): { issuer: string; keys: TokenKeys } {
    const { alg, iss } = decoded(token)
    if (typeof alg === 'string' && alg.toLowerCase() === 'none') {
      throw new TollgateError('TOKEN_UNSIGNED', 'The token is not signed ("alg": "none").')
    }
    const allowed: readonly string[] = options.algorithms
    if (typeof alg !== 'string' || !allowed.includes(alg)) {
      const named = typeof alg === 'string' ? JSON.stringify(alg.slice(0, 20)) : 'no text'
      const message = `The token's algorithm is ${named}; one of ${allowed.join(', ')} is taken.`
      throw new TollgateError('TOKEN_ALGORITHM', message)
    }
    const keys = typeof iss === 'string' ? issuers.get(iss) : undefined
    if (typeof iss !== 'string' || keys === undefined) {
      throw new TollgateError('TOKEN_ISSUER', 'The token is of an issuer ("iss") that is not trusted here.')
    }
    return { issuer: iss, keys }
  }

  async function verified(token: string, issuer: string, keys: TokenKeys): Promise<JWTPayload> {
    const { payload } = await jwtVerify(token, (header) => keys.keyOf(header), {
      algorithms: [...options.algorithms],
      issuer,
      audience: [...options.audiences],
      requiredClaims: ['exp'],
      clockTolerance: clockSkewSeconds,
      currentDate: new Date(clock()),
    })
    return payload
  }

  return {
    verify,
    isKnown(token) {
      const entry = looksLikeToken(token) ? knownBy(digestOf(token)) : undefined
      return entry?.identity !== undefined && clock() < entry.endsAtMs
    },
  }
}

interface Known {
  /** Undefined of one that had expired when it first came. */
  readonly identity: TokenIdentity | undefined
  readonly keys: TokenKeys
  /** Of the keys that it was verified with. */
  readonly generation: number
  /** Unix milliseconds, clock skew included. */
  readonly endsAtMs: number
}

/** What users are known by in the control plane has this bound, too. */
const maxSubjectLength = 512

function decoded(token: string): { alg: unknown; iss: unknown } {
  try {
    return { alg: decodeProtectedHeader(token).alg, iss: decodeJwt(token).iss }
  } catch (cause) {
    throw malformed('The token is no JSON Web Token: three base64url parts with dots between.', cause)
  }
}

/** Reasons of our own for what jose finds; what it cannot even try is a signature that is not verified. */
function refusalOf(error: unknown, audiences: readonly string[]): unknown {
  if (error instanceof TollgateError) return error
  if (error instanceof errors.JWTExpired) return expired(Number(error.payload.exp))
  if (error instanceof errors.JWTClaimValidationFailed) return claimRefusal(error, audiences)
  if (unreadable.some((kind) => error instanceof kind)) {
    return malformed('The token is no JSON Web Token that can be verified.', error)
  }
  const message = 'The signature of the token is not that of its issuer.'
  return new TollgateError('TOKEN_SIGNATURE', message, { cause: error })
}

/** Also what is critical to the issuer ("crit") and not known here. */
const unreadable = [errors.JWTInvalid, errors.JWSInvalid, errors.JOSENotSupported]

function claimRefusal(error: errors.JWTClaimValidationFailed, audiences: readonly string[]): TollgateError {
  const { claim, reason, payload } = error
  if (claim === 'aud') {
    return new TollgateError('TOKEN_AUDIENCE', `The token is not for ${audiences.join(' or ')} ("aud").`)
  }
  if (claim === 'nbf' && reason === 'check_failed') {
    const notBefore = instantOf(Number(payload.nbf))
    return new TollgateError('TOKEN_NOT_YET_VALID', `The token is not valid before ${notBefore}.`, {
      metadata: { notBefore },
    })
  }
  if (claim === 'iss') return new TollgateError('TOKEN_ISSUER', 'The token is of another issuer ("iss").')
  return malformed(`The token's claim ${JSON.stringify(claim)} is missing or of a wrong type.`, error)
}

function expired(expSeconds: number): TollgateError {
  const expireTime = instantOf(expSeconds)
  return new TollgateError('TOKEN_EXPIRED', `The token expired at ${expireTime}. Get a new one.`, {
    metadata: { expireTime },
  })
}

/** Any number may stand in a token; those that are no instant of the calendar are told as they are. */
function instantOf(seconds: number): string {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime()) ? `second ${seconds}` : date.toISOString()
}

function malformed(message: string, cause: unknown): TollgateError {
  return new TollgateError('TOKEN_MALFORMED', message, { cause })
}
