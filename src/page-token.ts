import { TollgateError } from './errors.ts'

/** Rows of a page when a request asks for 0. */
const defaultPageSize = 50
/** The contract's ceiling; kept here too, so that no query is ever unbounded. */
const maxPageSize = 1_000

/** Rows to answer for a request's `page_size`. */
export function pageSizeOf(requested: number): number {
  return requested <= 0 ? defaultPageSize : Math.min(requested, maxPageSize)
}

/**
 * A page token holds the sort key of the page's last row, so that a page costs the same wherever it is, and rows that
 * are added meanwhile shift nothing. It is opaque to callers, not secret, and grants nothing.
 */
export function pageTokenOf(parts: readonly string[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

/**
 * The parts of a token, undefined for the first page. Throws INVALID_ARGUMENT when it is no token of `count` parts, or
 * `isValid` refuses one.
 */
export function parsePageToken(
  token: string,
  count: number,
  isValid: (part: string, index: number) => boolean,
): readonly string[] | undefined {
  if (token === '') return undefined
  const parts = decode(token)
  if (parts?.length === count && parts.every(isValid)) return parts
  throw new TollgateError('INVALID_ARGUMENT', 'page_token is not a next_page_token of this list.', {
    fields: [{ field: 'page_token', description: 'must be a next_page_token of this list, or empty' }],
  })
}

/** Splits rows that were read one beyond the page into the page and the token of the next one. */
export function pageOf<T>(rows: readonly T[], size: number, keyOf: (row: T) => readonly string[]): Page<T> {
  const page = rows.slice(0, size)
  const last = page.at(-1)
  return { rows: page, nextPageToken: rows.length > size && last !== undefined ? pageTokenOf(keyOf(last)) : '' }
}

export interface Page<T> {
  readonly rows: readonly T[]
  /** Empty on the last page. */
  readonly nextPageToken: string
}

function decode(token: string): string[] | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, 'base64url').toString())
    return Array.isArray(value) && value.every((part) => typeof part === 'string') ? value : undefined
  } catch {
    return undefined
  }
}
