/** Why an outside registry did not do what it was asked. */
export class RegistryError extends Error {
  override readonly name = 'RegistryError'
  readonly kind: RegistryFailure
  /** Of the answer; undefined when there was none. */
  readonly status: number | undefined
  /** What the registry asked for; milliseconds. */
  readonly retryAfterMs: number | undefined

  constructor(kind: RegistryFailure, message: string, status?: number, retryAfterMs?: number) {
    super(message)
    this.kind = kind
    this.status = status
    this.retryAfterMs = retryAfterMs
  }
}

/**
 * - `key`: the key is wrong, or lacks a right: somebody has to mend it.
 * - `unsupported`: the registry has no such route; reference 004 promises no other one than that of registrations.
 * - `taken`: it has the name and version already.
 * - `refused`: it will refuse this registration whenever it comes.
 * - `failed`: all else; another attempt may succeed.
 */
export type RegistryFailure = 'key' | 'unsupported' | 'taken' | 'refused' | 'failed'

/** What an HTTP status means; undefined for one that is no failure. */
export function failureOfStatus(status: number, retryAfterMs?: number): RegistryError | undefined {
  if (status >= 200 && status < 300) return undefined
  if (status === 401 || status === 403) {
    return new RegistryError('key', `it refuses REGISTRY_API_KEY (HTTP ${status})`, status)
  }
  if (status >= 300 && status < 400) {
    const message = `HTTP ${status}: redirects are not followed, REGISTRY_URL must be the registry itself`
    return new RegistryError('failed', message, status)
  }
  const kind = kinds.get(status) ?? 'failed'
  return new RegistryError(kind, `HTTP ${status}`, status, retryAfterMs)
}

const kinds: ReadonlyMap<number, RegistryFailure> = new Map([
  [400, 'refused'],
  [404, 'unsupported'],
  [405, 'unsupported'],
  [409, 'taken'],
  [413, 'refused'],
  [415, 'refused'],
  [422, 'refused'],
  [501, 'unsupported'],
])
