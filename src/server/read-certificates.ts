import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'

export interface CertificatePaths {
  /** PEM: the listener's certificate, then those that lead from it to its CA. */
  readonly certPath: string
  /** PEM: its private key. */
  readonly keyPath: string
  /** PEM: the CAs that vouch for clients; undefined: none does. */
  readonly clientCaPath?: string | undefined
}

/** Contents of the files, found good. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
  readonly ca: string | undefined
  /** Unix milliseconds from which all certificates of the chain are valid. */
  readonly validFromMs: number
  /** Unix milliseconds at which the first of them ends. */
  readonly expiresAtMs: number
}

/** Reads the files as they are; rejects with the path of the one that cannot be read. */
export async function readCertificateFiles(paths: CertificatePaths): Promise<readonly (string | undefined)[]> {
  const { certPath, keyPath, clientCaPath } = paths
  return await Promise.all(
    [certPath, keyPath, clientCaPath].map((path) => (path === undefined ? undefined : readFile(path, 'utf8'))),
  )
}

/**
 * Checks what a listener could not use, or its callers would not take: a key of another certificate, a chain that is not
 * valid at `nowMs` (without it, at whatever time), a CA that may not vouch for others. Throws an Error that says so, without anything of the key.
 */
export function checkCertificates(contents: readonly (string | undefined)[], nowMs?: number): CertificateFiles {
  const [cert = '', key = '', ca] = contents
  const chain = certificatesIn(cert, 'the certificate file')
  createSecureContext({ cert, key, ...(ca === undefined ? {} : { ca }) })
  if (nowMs !== undefined) for (const certificate of chain) checkTime(certificate, nowMs)
  if (ca !== undefined && !certificatesIn(ca, 'the CA file').every((authority) => authority.ca)) {
    throw new Error('the CA file holds a certificate that may not vouch for others')
  }
  return {
    cert,
    key,
    ca,
    validFromMs: Math.max(...chain.map(({ validFromDate }) => validFromDate.getTime())),
    expiresAtMs: Math.min(...chain.map(({ validToDate }) => validToDate.getTime())),
  }
}

function checkTime({ validFromDate, validToDate }: X509Certificate, nowMs: number): void {
  if (validFromDate.getTime() > nowMs) throw new Error(`it is not valid before ${validFromDate.toISOString()}`)
  if (validToDate.getTime() <= nowMs) throw new Error(`it expired at ${validToDate.toISOString()}`)
}

/** OpenSSL passes over what it cannot read in a file of several certificates; one that is lost there must be noticed. */
function certificatesIn(pem: string, what: string): readonly X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Error(`${what} holds no certificate`)
  return blocks.map((block) => new X509Certificate(block))
}
