import { TollgateError } from '../errors.ts'
import type { AdminKey } from './admin-key.ts'
import type { ClientCertificate } from './client-certificate.ts'
import { looksLikeKey } from './key-format.ts'
import { invalid, type KeyVerifier } from './key-verifier.ts'
import type { Caller } from './principal.ts'
import { looksLikeToken } from './token-verifier.ts'

export interface AuthenticatorOptions {
  readonly verifier: Pick<KeyVerifier, 'verify'>
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
 * Throws CREDENTIAL_MISSING without either, else what {@link KeyVerifier.verify}, `verifyToken` or `verifyCertificate` throw.
 */
export type Authenticator = (
  credential: string | undefined,
  certificate?: () => ClientCertificate | undefined,
) => Promise<Caller>

export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { verifier, adminKey, verifyToken, verifyCertificate } = options
  return async (credential, certificate) => {
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
