import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import { createAdminKey } from '../identity/admin-key.ts'
import { type Authenticator, createAuthenticator } from '../identity/authenticator.ts'
import { identityOfCertificate } from '../identity/client-certificate.ts'
import { type CredentialGuard, createCredentialGuard } from '../identity/credential-guard.ts'
import { createKeyUses, type KeyUses, upsertKeyUses } from '../identity/key-uses.ts'
import type { KeyVerifier } from '../identity/key-verifier.ts'
import { createOutsideCallers } from '../identity/outside-callers.ts'
import { requireStanding } from '../identity/standing.ts'
import { createTokens, type Tokens } from '../identity/tokens.ts'
import { userKey } from '../identity/user-record.ts'
import type { Snapshots } from '../registry/snapshots.ts'
import { type Certificates, followCertificates } from '../server/certificates.ts'
import type { Sql } from '../storage/postgres.ts'
import type { Closers } from './closers.ts'

/** How callers are known. */
export interface Identity {
  readonly authenticate: Authenticator
  readonly credentialGuard: CredentialGuard
  readonly keyUses: KeyUses
  /** Undefined: no issuer of tokens is configured. */
  readonly tokens: Tokens | undefined
  /** Undefined: the listener speaks cleartext. */
  readonly certificates: Certificates | undefined
}

export interface IdentityParts {
  readonly sql: Sql
  readonly log: Logger
  /** Unix milliseconds. */
  readonly now: () => number
  readonly snapshots: Snapshots
  readonly verifier: KeyVerifier
}

/** Opens every way to be known: keys, tokens, certificates, and the key of the administrator. */
export async function openIdentity(
  config: Config,
  { sql, log, now, snapshots, verifier }: IdentityParts,
  closers: Closers,
): Promise<Identity> {
  const keyUses = createKeyUses({ write: (uses) => upsertKeyUses(sql, uses), log, clock: now })
  closers.push(() => keyUses.stop())
  const adminKey = config.access.adminKey === undefined ? undefined : createAdminKey(config.access.adminKey)
  const callerOf = createOutsideCallers({
    findUser: (issuer, subject) => snapshots.current().usersBySubject.get(userKey(issuer, subject)),
    findConsumer: (id) => snapshots.current().consumersById.get(id),
    trustClaims: config.tokens?.trustClaims ?? false,
    log,
  })
  const tokens = config.tokens && createTokens({ ...config.tokens, callerOf, clock: now, log })
  const credentialGuard = createCredentialGuard({
    perMinute: config.access.credentialFailuresPerMinute,
    isKnown: (credential) =>
      verifier.isKnown(credential) || adminKey?.match(credential) !== undefined || tokens?.isKnown(credential) === true,
    clock: now,
  })
  const { tls } = config.server
  const certificates = tls && (await followCertificates({ ...tls, log, now }))
  closers.push(async () => certificates?.close())
  const authenticate = createAuthenticator({
    verifier,
    adminKey,
    verifyToken: tokens?.verify,
    verifyCertificate: (certificate) => callerOf(identityOfCertificate(certificate, tls?.trustDomains ?? [], now())),
  })
  return { authenticate: requireStanding(authenticate, snapshots), credentialGuard, keyUses, tokens, certificates }
}
