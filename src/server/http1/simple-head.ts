/**
 * Heads of requests that are **simple**: one way to read them, and no two readers could disagree on where the request ends or
 * what it says. Everything else, wrong or only unusual, is Node's to read and to answer.
 */

import { pathOf } from '../exchange.ts'
import type { IncomingHeaders } from '../server-call.ts'

/** What the head of a simple request says. */
export interface SimpleHead {
  readonly method: string
  readonly url: string
  /** Of the URL, without its query. */
  readonly path: string
  /** As Node's HTTP server hands them out. */
  readonly headers: IncomingHeaders
  /** Bytes of the body behind it. */
  readonly bodyLength: number
  /** True when the caller wants the connection to end with the answer. */
  readonly closes: boolean
}

/**
 * The head in a text that is all of it but for the empty line at its end, a character for each byte; undefined when it is not
 * simple: when it is not HTTP/1.1 in every character, names a header twice, or has one that changes how the connection is used.
 */
export function parseSimpleHead(text: string): SimpleHead | undefined {
  const [, method, url] = shape.exec(text) ?? []
  if (method === undefined || url === undefined) return undefined
  const headers: Record<string, string> = {}
  for (let at = text.indexOf('\n') + 1; at < text.length; ) {
    const colon = text.indexOf(':', at)
    const end = text.indexOf('\r', colon)
    const written = text.slice(at, colon)
    const name = knownNames.get(written) ?? written.toLowerCase()
    if (unusual.has(name) || Object.hasOwn(headers, name)) return undefined
    headers[name] = withoutBlanks(text, colon + 1, end)
    at = end + 2
  }
  const { host, connection = 'keep-alive', 'content-length': length = '0' } = headers
  if (host === undefined || !isBodyLength(length)) return undefined
  const closes = connection.toLowerCase() === 'close'
  if (!closes && connection.toLowerCase() !== 'keep-alive') return undefined
  return { method, url, path: pathOf(url), headers, bodyLength: Number(length), closes }
}

/**
 * RFC 9112 §3 and §5, without what is optional or obsolete in them: one space each in the request line, a path as its target, no
 * folded lines, no tabs, CRLF at the end of each line.
 */
const shape =
  /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (\/[!-"$-~]*) HTTP\/1\.1\r\n(?:[!#$%&'*+\-.^_`|~\dA-Za-z]+:[ -~\x80-\xff]*\r\n)+$/

/** Whether a content-length is simple: no sign, no list, no second way to write the same number. */
export function isBodyLength(digits: string): boolean {
  return bodyLength.test(digits)
}

const bodyLength = /^(?:0|[1-9]\d{0,6})$/

/** The same head with another length of the body, which is a simple one. */
export function withBodyLength(head: SimpleHead, digits: string): SimpleHead {
  return { ...head, headers: { ...head.headers, 'content-length': digits }, bodyLength: Number(digits) }
}

/** They say how body or connection are to be read; the last two Node hands out as a list, and not at all. */
const unusual: ReadonlySet<string> = new Set([
  'transfer-encoding',
  'trailer',
  'upgrade',
  'http2-settings',
  'expect',
  'proxy-connection',
  'keep-alive',
  'set-cookie',
  '__proto__',
])

/** As callers write them, by how. Others are put in lower case one by one. */
const knownNames: ReadonlyMap<string, string> = new Map(
  [
    'accept',
    'accept-encoding',
    'accept-language',
    'authorization',
    'connect-protocol-version',
    'connect-timeout-ms',
    'connection',
    'content-encoding',
    'content-length',
    'content-type',
    'host',
    'idempotency-key',
    'origin',
    'traceparent',
    'tracestate',
    'user-agent',
    'x-api-key',
    'x-forwarded-for',
    'x-forwarded-proto',
    'x-request-id',
    'x-request-timeout-ms',
  ].flatMap((name) => [
    [name, name],
    [name.replace(/(?<=^|-)[a-z]/g, (letter) => letter.toUpperCase()), name],
  ]),
)

function withoutBlanks(text: string, from: number, to: number): string {
  let start = from
  let end = to
  while (start < end && text.charCodeAt(start) === space) start += 1
  while (end > start && text.charCodeAt(end - 1) === space) end -= 1
  return text.slice(start, end)
}

const space = 0x20
