import { TLSSocket } from 'node:tls'
import { type ClientCertificate, distinguishedName, uriNames } from '../identity/client-certificate.ts'
import type { Exchange } from './exchange.ts'

/**
 * The certificate of a request's client, which the listener verified; undefined when it showed none, or the port is in clear.
 * It is the same for all requests of a connection, and parsed for the first one that asks.
 */
export function peerCertificateOf({ connection, socket }: Exchange): ClientCertificate | undefined {
  const known = certificates.get(connection)
  if (known !== undefined) return known.certificate
  const certificate = certificateOf(socket)
  certificates.set(connection, { certificate })
  return certificate
}

const certificates = new WeakMap<object, { readonly certificate: ClientCertificate | undefined }>()

function certificateOf(socket: unknown): ClientCertificate | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) return undefined
  return {
    uris: uriNames(certificate.subjectAltName),
    subject: distinguishedName(certificate.subject),
    expiresAtMs: certificate.validToDate.getTime(),
  }
}
