import * as is from '../config-parsers.ts'
import { isSafeUrl } from '../identity/fetch-token-keys.ts'
import { type TokenAlgorithm, tokenAlgorithms } from '../identity/token-algorithms.ts'
import type { ClaimNames } from '../identity/token-claims.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** JSON Web Tokens as credentials. */
export const tokenVariables = {
  jwtIssuers: setting(is.urls('https', 'http'), {
    name: 'JWT_ISSUER',
    aliases: ['JWT_ISSUERS'],
    group: 'Tokens',
    default: [],
    description:
      'Issuers whose tokens are accepted, exactly as the `iss` of their tokens. Without it tokens are wrong credentials.',
  }),
  jwtAudiences: setting(is.texts, {
    name: 'JWT_AUDIENCE',
    group: 'Tokens',
    default: [],
    description: 'Names of this gate, one of which must be in the `aud` of a token. Needed with JWT_ISSUER.',
  }),
  jwtKeysUrl: optional(is.url('https', 'http'), {
    name: 'JWT_JWKS_URL',
    group: 'Tokens',
    description:
      'Where the keys of the one issuer are. Without it the discovery document says, at `/.well-known/openid-configuration` below each issuer.',
  }),
  jwtKeysStaleSeconds: setting(is.integer(300, 604_800), {
    name: 'JWT_JWKS_STALE_SECONDS',
    group: 'Tokens',
    default: 3600,
    description:
      'How many seconds after they were last read the keys of an issuer are used while it is away. They are read again every 5 minutes.',
  }),
  jwtAllowHttp: setting(is.boolean, {
    name: 'JWT_ALLOW_HTTP',
    group: 'Tokens',
    default: false,
    description:
      'Whether keys may be read over `http://` from other machines. Whoever is on the way there can then be anybody.',
  }),
  jwtAlgorithms: setting(is.someOf(...tokenAlgorithms), {
    name: 'JWT_ALGORITHMS',
    group: 'Tokens',
    default: tokenAlgorithms,
    description: 'Algorithms that a token may be signed with. Those with a shared secret, and `none`, are never taken.',
  }),
  jwtClockSkewSeconds: setting(is.integer(0, 300), {
    name: 'JWT_CLOCK_SKEW_SECONDS',
    group: 'Tokens',
    default: 30,
    description: "How many seconds an issuer's clock may be from this one.",
  }),
  jwtTrustClaims: setting(is.boolean, {
    name: 'JWT_TRUST_CLAIMS',
    group: 'Tokens',
    default: false,
    description:
      'Whether a token of somebody who is no user gets the roles, consumer and organization that its claims name.',
  }),
  jwtRolesClaim: setting(is.text, {
    name: 'JWT_ROLES_CLAIM',
    group: 'Tokens',
    default: 'roles',
    description: 'Claim with the names of roles. A dot leads into an object, as in `resource_access.tollgate.roles`.',
  }),
  jwtConsumerClaim: setting(is.text, {
    name: 'JWT_CONSUMER_CLAIM',
    group: 'Tokens',
    default: 'tollgate_consumer',
    description: 'Claim with the id of the consumer that the bearer calls for.',
  }),
  jwtOrganizationClaim: setting(is.text, {
    name: 'JWT_ORGANIZATION_CLAIM',
    group: 'Tokens',
    default: 'tollgate_organization',
    description: 'Claim with the id of the organization that the bearer belongs to.',
  }),
} as const

/** Whose tokens are accepted, and what is read from them. */
export interface TokenSettings {
  readonly issuers: readonly string[]
  readonly audiences: readonly string[]
  /** Undefined: the discovery documents of the issuers say where their keys are. */
  readonly keysUrl: string | undefined
  readonly keysStaleSeconds: number
  readonly allowHttp: boolean
  readonly algorithms: readonly TokenAlgorithm[]
  readonly clockSkewSeconds: number
  readonly trustClaims: boolean
  readonly claims: ClaimNames
}

/** Undefined: no issuer of tokens is trusted. Refuses keys that others could replace on their way here. */
export function readTokens(from: SettingsReader): TokenSettings | undefined {
  const settings: TokenSettings = {
    issuers: from.read(tokenVariables.jwtIssuers),
    audiences: from.read(tokenVariables.jwtAudiences),
    keysUrl: from.read(tokenVariables.jwtKeysUrl),
    keysStaleSeconds: from.read(tokenVariables.jwtKeysStaleSeconds),
    allowHttp: from.read(tokenVariables.jwtAllowHttp),
    algorithms: from.read(tokenVariables.jwtAlgorithms),
    clockSkewSeconds: from.read(tokenVariables.jwtClockSkewSeconds),
    trustClaims: from.read(tokenVariables.jwtTrustClaims),
    claims: {
      roles: from.read(tokenVariables.jwtRolesClaim),
      consumer: from.read(tokenVariables.jwtConsumerClaim),
      organization: from.read(tokenVariables.jwtOrganizationClaim),
    },
  }
  const { issuers, audiences, keysUrl, allowHttp } = settings
  const keepsHttps = 'Use https://, or set JWT_ALLOW_HTTP=true where nobody else is on the way'
  if (!issuers.every((issuer) => keysUrl !== undefined || isSafeUrl(issuer, allowHttp)))
    from.refuse(
      tokenVariables.jwtIssuers,
      'is reached in clear, so that others could put their keys in place of its own',
      keepsHttps,
    )
  if (keysUrl !== undefined && !isSafeUrl(keysUrl, allowHttp))
    from.refuse(
      tokenVariables.jwtKeysUrl,
      'is in clear, so that others could put their keys in place of these',
      keepsHttps,
    )
  if (keysUrl !== undefined && issuers.length !== 1)
    from.refuse(
      tokenVariables.jwtKeysUrl,
      `stands beside ${issuers.length} issuers`,
      'Name one in JWT_ISSUER, or leave it out',
    )
  if (issuers.length === 0) return undefined
  if (audiences.length === 0)
    from.refuse(
      tokenVariables.jwtAudiences,
      'is missing while JWT_ISSUER is set, and a token for any other service would be good here',
      'Set it to what the issuer writes into the "aud" of tokens for this gate',
    )
  return settings
}
