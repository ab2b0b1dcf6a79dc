import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting, type Variable } from './variable.ts'

/** The certificate of the listener, and those of its clients. */
export const tlsVariables = {
  tlsCertFile: optional(is.path, {
    name: 'TLS_CERT_FILE',
    group: 'Server',
    description:
      'File with the PEM certificate chain. With it and TLS_KEY_FILE the listener speaks TLS only. The files are followed as they change.',
  }),
  tlsKeyFile: optional(is.path, {
    name: 'TLS_KEY_FILE',
    group: 'Server',
    description: 'File with the PEM private key of TLS_CERT_FILE.',
  }),
  tlsClientAuth: setting(is.oneOf('off', 'optional', 'required'), {
    name: 'TLS_CLIENT_AUTH',
    group: 'Server',
    default: 'off',
    description:
      'Whether clients are asked for a certificate, and must have one. See [authentication](authentication.md#client-certificates).',
  }),
  tlsClientCaFile: optional(is.path, {
    name: 'TLS_CLIENT_CA_FILE',
    group: 'Server',
    description: 'File with the PEM certificates of the CAs that vouch for clients. Needed with TLS_CLIENT_AUTH.',
  }),
  spiffeTrustDomains: setting(is.texts, {
    name: 'TLS_SPIFFE_TRUST_DOMAINS',
    group: 'Server',
    default: [],
    description: 'Trust domains whose SPIFFE ids in certificates of clients are accepted, such as `prod.example`.',
  }),
} as const

/** Files of the listener, and what it asks of clients. */
export interface TlsSettings {
  readonly certPath: string
  readonly keyPath: string
  readonly clientAuth: 'off' | 'optional' | 'required'
  /** Undefined: no client has a certificate. */
  readonly clientCaPath: string | undefined
  readonly trustDomains: readonly string[]
}

/** Undefined: cleartext. Refuses files that a listener could not use, and halves of a pair. */
export function readTls(from: SettingsReader): TlsSettings | undefined {
  const { tlsCertFile, tlsKeyFile, tlsClientAuth, tlsClientCaFile } = tlsVariables
  const certPath = from.read(tlsCertFile)
  const keyPath = from.read(tlsKeyFile)
  const clientAuth = from.read(tlsClientAuth)
  const clientCaPath = from.read(tlsClientCaFile)
  const trustDomains = from.read(tlsVariables.spiffeTrustDomains)

  from.needBoth({ variable: tlsCertFile, value: certPath }, { variable: tlsKeyFile, value: keyPath })
  if (clientAuth !== 'off' && (clientCaPath === undefined || certPath === undefined))
    from.refuse(
      tlsClientAuth,
      `needs ${clientCaPath === undefined ? 'TLS_CLIENT_CA_FILE' : 'TLS_CERT_FILE and TLS_KEY_FILE'}`,
      'Set all of them, or leave it out',
    )
  if (clientAuth === 'off' && clientCaPath !== undefined)
    from.refuse(
      tlsClientCaFile,
      'has no effect while TLS_CLIENT_AUTH is off',
      'Set TLS_CLIENT_AUTH to optional or required, or leave it out',
    )
  readPem(from, tlsClientCaFile, clientCaPath)
  const cert = readPem(from, tlsCertFile, certPath)
  const key = readPem(from, tlsKeyFile, keyPath)
  const unfit = cert === undefined || key === undefined ? undefined : whyUnfit(cert, key)
  if (unfit !== undefined)
    from.refuse(
      tlsCertFile,
      `and TLS_KEY_FILE cannot be used together (${unfit})`,
      'Set them to a PEM certificate chain and its private key',
    )

  if (certPath === undefined || keyPath === undefined) return undefined
  return { certPath, keyPath, clientAuth, clientCaPath, trustDomains }
}

function readPem(
  from: SettingsReader,
  variable: Variable<string | undefined>,
  file: string | undefined,
): Buffer | undefined {
  const content = file === undefined ? undefined : contentOf(file)
  if (file !== undefined && content === undefined)
    from.refuse(variable, 'is not a file that this process can read', 'Set it to the path of a readable PEM file')
  return content
}

/** Undefined when it cannot be read. */
function contentOf(file: string): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch {
    return undefined
  }
}

/** Why a listener could not use the two; undefined when it can. */
function whyUnfit(cert: Buffer, key: Buffer): string | undefined {
  try {
    createSecureContext({ cert, key })
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
