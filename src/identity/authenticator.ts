import { TollgateError } from '../errors.ts'
import type { AdminKey } from './admin-key.ts'
import type { ClientCertificate } from './client-certificate.ts'
import { looksLikeKey } from './key-format.ts'
import { invalid, type KeyVerifier } from './key-verifier.ts'
import type { Caller } from './principal.ts'
import { looksLikeToken } from './token-verifier.ts'

export interface AuthenticatorOptions {
  /** Without `recall` every call waits, if only for a moment. */
  readonly verifier: Pick<KeyVerifier, 'verify'> & Partial<Pick<KeyVerifier, 'recall'>>
  /** Absent: there is no administrator by key. */
  readonly adminKey?: AdminKey | undefined
  /** Who a token speaks for. Absent: no issuer is trusted, and every token is a wrong credential. */
  readonly verifyToken?: ((token: string) => Promise<Caller>) | undefined
  /** Who a client's certificate speaks for. Absent: certificates are nobody's. */
  readonly verifyCertificate?: ((certificate: ClientCertificate) => Caller) | undefined
}

/**
 * Tells who brings a credential (the value of "authorization: Bearer" or "x-api-key"); undefined: none was brought. Only then
 * is it asked for the certificate of the connection: a proxy with a certificate of its own calls for whom the credential says.
 * Rejects with CREDENTIAL_MISSING without either, else with what {@link KeyVerifier.verify}, `verifyToken` or `verifyCertificate`
 * throw. The caller itself, not a promise, for a key that was found good before.
 */
export type Authenticator = (
  credential: string | undefined,
  certificate?: () => ClientCertificate | undefined,
) => Caller | Promise<Caller>

export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { verifier, adminKey, verifyToken, verifyCertificate } = options
  const recalled = (credential = '') => verifier.recall?.(credential)
  return (credential, certificate) => recalled(credential) ?? authenticate(credential, certificate)

  async function authenticate(...[credential, certificate]: Parameters<Authenticator>): Promise<Caller> {
    if (credential === undefined || credential === '') {
      const shown = verifyCertificate && certificate?.()
      if (verifyCertificate !== undefined && shown !== undefined) return verifyCertificate(shown)
      const message = 'This call needs a credential: send "authorization: Bearer <key or token>" or "x-api-key: <key>".'
      throw new TollgateError('CREDENTIAL_MISSING', message)
    }
    if (looksLikeKey(credential)) return verifier.verify(credential)
    const principal = adminKey?.match(credential)
    if (principal !== undefined) return principal
    if (verifyToken === undefined || !looksLikeToken(credential)) throw invalid()
    return verifyToken(credential)
  }
}
