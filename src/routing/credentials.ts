import { readFile } from 'node:fs/promises'
import { TollgateError } from '../errors.ts'

/** Resolves credential references; what it returns goes into one request header and nowhere else. */
export interface Credentials {
  /** Value behind "env:NAME" or "file:/path"; undefined for an empty reference. */
  resolve(reference: string): Promise<string> | string | undefined
  /** A backend refused it: a file is read again before its next use. */
  refused(reference: string): void
}

/**
 * How long a file's content is used before it is read again: a rotated credential is in use after that, and at once when
 * the backend refuses the old one. Contents are compared with nothing, not even the time of the file's change: where
 * secrets are mounted, a rotation exchanges a link above the file.
 */
const fileTtlMs = 5_000

/**
 * Reads credentials from the given environment, once, which must hold none of the gate's own secrets, and from files. Throws
 * BACKEND_CREDENTIAL_REFUSED, naming the reference and never the value, when there is nothing behind it.
 */
export function createCredentials(env: Readonly<Record<string, string | undefined>>, now: () => number): Credentials {
  const variables = new Map(Object.entries(env))
  const files = new Map<string, { value: string; untilMs: number }>()

  async function fromFile(path: string, reference: string): Promise<string> {
    const cached = files.get(path)
    if (cached !== undefined && cached.untilMs > now()) return cached.value
    const value = await readFile(path, 'utf8').then(
      (text) => text.trim(),
      () => '',
    )
    if (value === '') throw missing(reference)
    files.set(path, { value, untilMs: now() + fileTtlMs })
    return value
  }

  return {
    resolve(reference) {
      if (reference === '') return undefined
      if (reference.startsWith('file:')) return fromFile(reference.slice(5), reference)
      const value = variables.get(reference.slice(4))
      if (value === undefined || value === '') throw missing(reference)
      return value
    },
    refused(reference) {
      if (reference.startsWith('file:')) files.delete(reference.slice(5))
    },
  }
}

function missing(reference: string): TollgateError {
  return new TollgateError('BACKEND_CREDENTIAL_REFUSED', "The gate has no credential for this service's backend.", {
    metadata: { failure: 'credential_missing', credentialRef: reference },
  })
}
