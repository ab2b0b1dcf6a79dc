/**
 * What a header block says of a request (RFC 9113, sections 8.2 and 8.3), in the shape in which Node's servers hand out headers:
 * names in lower case, pseudo-headers among them, what came twice joined.
 */
import { pathOf } from '../exchange.ts'
import type { IncomingHeaders } from '../server-call.ts'

export interface RequestHead {
  readonly headers: IncomingHeaders
  readonly method: string
  readonly url: string
  readonly path: string
  /** Of `content-length`; undefined without one. */
  readonly contentLength: number | undefined
}

/** The head in a list of names and values in turn; undefined when it is malformed. */
export function readHead(list: readonly string[]): RequestHead | undefined {
  const fields: Record<string, string | string[] | undefined> = { __proto__: null } as never
  let isPseudo = true
  for (let at = 0; at < list.length; at += 2) {
    const name = list[at] ?? ''
    const value = list[at + 1] ?? ''
    if (name.charCodeAt(0) === colon) {
      if (!isPseudo || !pseudoHeaders.has(name) || fields[name] !== undefined) return undefined
    } else {
      isPseudo = false
      if (!isField(name, value)) return undefined
    }
    if (invalidValue.test(value)) return undefined
    if (!put(fields, name, value)) return undefined
  }
  return isRequest(fields) ? headOf(fields) : undefined
}

/** Whether the trailers of a request are as they should be; nobody asks what they say. */
export function areTrailers(list: readonly string[]): boolean {
  for (let at = 0; at < list.length; at += 2) {
    if (!isField(list[at] ?? '', list[at + 1] ?? '') || invalidValue.test(list[at + 1] ?? '')) return false
  }
  return true
}

const colon = 0x3a
const pseudoHeaders: ReadonlySet<string> = new Set([':method', ':scheme', ':authority', ':path'])

/** A token in lower case (RFC 9110, section 5.6.2). */
const token = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/

/** Control characters, and space around a value. */
const invalidValue = /[^\t\x20-\x7e\x80-\xff]|^[ \t]|[ \t]$/

/** They speak of the connection, which here is the frames' matter. */
const connectionSpecific: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

function isField(name: string, value: string): boolean {
  if (!token.test(name) || connectionSpecific.has(name)) return false
  return name !== 'te' || value === 'trailers'
}

/** Adds a header as Node does; false when it came twice and must not. */
function put(fields: Record<string, string | string[] | undefined>, name: string, value: string): boolean {
  const before = fields[name]
  if (before === undefined) fields[name] = name === 'set-cookie' ? [value] : value
  else if (name === 'host' || name === 'content-length') return false
  else if (Array.isArray(before)) before.push(value)
  else if (!single.has(name)) fields[name] = `${before}${name === 'cookie' ? '; ' : ', '}${value}`
  return true
}

/** Of them, as in Node, the first one counts. */
const single: ReadonlySet<string> = new Set([
  'access-control-request-method',
  'age',
  'authorization',
  'content-encoding',
  'content-language',
  'content-location',
  'content-md5',
  'content-range',
  'content-type',
  'date',
  'dnt',
  'etag',
  'expires',
  'from',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'last-modified',
  'location',
  'max-forwards',
  'proxy-authorization',
  'range',
  'referer',
  'retry-after',
  'tk',
  'upgrade-insecure-requests',
  'user-agent',
])

type Fields = Readonly<Record<string, string | string[] | undefined>>

/** Whether what every request must say is there. */
function isRequest({
  ':method': method,
  ':scheme': scheme,
  ':path': path,
  ':authority': authority,
  host,
}: Fields): boolean {
  if (method === 'CONNECT') return scheme === undefined && path === undefined && authority !== undefined
  if (method === undefined || scheme === undefined || typeof path !== 'string') return false
  if (method === '' || (authority ?? host ?? '') === '') return false
  return path.startsWith('/') || (path === '*' && method === 'OPTIONS')
}

function headOf(headers: Fields): RequestHead | undefined {
  const { ':method': method, ':path': path, 'content-length': length } = headers
  if (length !== undefined && !/^\d{1,15}$/.test(String(length))) return undefined
  const url = String(path ?? '/')
  return {
    headers,
    method: String(method),
    url,
    path: pathOf(url),
    contentLength: length === undefined ? undefined : Number(length),
  }
}
