import { TollgateError } from '../errors.ts'
import type { OutsideIdentity } from './outside-callers.ts'

/** What of a client's certificate says who it is. The listener verified it against the CA of clients. */
export interface ClientCertificate {
  /** Its alternative names that are URIs. */
  readonly uris: readonly string[]
  /** Its subject as in RFC 4514, "CN=gate,O=Example"; empty when it has none. */
  readonly subject: string
  /** Unix milliseconds. */
  readonly expiresAtMs: number
}

/**
 * Whom a certificate names: with a name in SPIFFE's scheme its SPIFFE id, else its subject. A SPIFFE certificate has
 * exactly one URI (https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id), so that nobody has to
 * choose between several. Throws CERTIFICATE_IDENTITY, and CERTIFICATE_EXPIRED on connections that outlived theirs.
 */
export function identityOfCertificate(
  { uris, subject, expiresAtMs }: ClientCertificate,
  trustDomains: readonly string[],
  nowMs: number,
): OutsideIdentity {
  if (expiresAtMs <= nowMs) {
    const expireTime = new Date(expiresAtMs).toISOString()
    const message = `The certificate of the client expired at ${expireTime}. Connect anew with a new one.`
    throw new TollgateError('CERTIFICATE_EXPIRED', message, { metadata: { expireTime } })
  }
  if (uris.some((uri) => /^spiffe:/i.test(uri))) {
    return { issuer: 'spiffe', subject: spiffeIdOf(uris, trustDomains), claims: undefined }
  }
  if (subject === '') throw refused('names nobody: it has neither a SPIFFE id nor a subject')
  return { issuer: 'x509', subject, claims: undefined }
}

function spiffeIdOf(uris: readonly string[], trustDomains: readonly string[]): string {
  const [id = ''] = uris
  if (uris.length > 1) throw refused(`has ${uris.length} URIs; one with a SPIFFE id has no other`)
  const [, trustDomain] = spiffeId.exec(id) ?? []
  if (trustDomain === undefined || id.length > maxIdLength) {
    throw refused(`has a SPIFFE id that is none: ${JSON.stringify(id.slice(0, 200))}`)
  }
  if (!trustDomains.includes(trustDomain)) {
    throw refused(`is of the trust domain ${trustDomain}, which is not trusted here`, { trustDomain })
  }
  return id
}

/**
 * A trust domain and a path without empty or dot segments
 * (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#2-spiffe-identity). A workload always has a path.
 */
const spiffeId = /^spiffe:\/\/([a-z0-9._-]{1,255})(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+$/

/** SPIFFE allows 2048; what users are known by in the control plane has this bound. */
const maxIdLength = 512

function refused(why: string, metadata: Readonly<Record<string, string>> = {}): TollgateError {
  return new TollgateError('CERTIFICATE_IDENTITY', `The certificate of the client ${why}.`, { metadata })
}

/** The URIs among alternative names as Node prints them: "URI:…, DNS:…", with unusual values as JSON texts. */
export function uriNames(subjectAltName: string | undefined): readonly string[] {
  const names: string[] = []
  for (const [, type, quoted, plain] of (subjectAltName ?? '').matchAll(alternativeName)) {
    if (type === 'URI') names.push(quoted === undefined ? (plain ?? '') : String(JSON.parse(quoted)))
  }
  return names
}

const alternativeName = /([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^,]*))(?:, |$)/gy

/** RFC 4514 has the parts of a name from the last to the first, Node a line for each from the first on. */
export function distinguishedName(subject: string | undefined): string {
  return (subject ?? '')
    .split('\n')
    .filter((part) => part !== '')
    .reverse()
    .join(',')
}
