import { TLSSocket } from 'node:tls'
import { type ClientCertificate, distinguishedName, uriNames } from '../identity/client-certificate.ts'
import type { Request } from './answer.ts'

/**
 * The certificate of a request's client, which the listener verified; undefined when it showed none, or the port is in clear.
 * It is the same for all requests of a connection, and parsed for the first one that asks.
 */
export function peerCertificateOf(request: Request): ClientCertificate | undefined {
  // The socket of an HTTP/2 request is another object for each: the session stands for the connection.
  const session = 'stream' in request ? request.stream.session : undefined
  const connection = session ?? request.socket
  const known = certificates.get(connection)
  if (known !== undefined) return known.certificate
  const certificate = certificateOf(session?.socket ?? request.socket)
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
