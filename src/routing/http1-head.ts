import { type IncomingHttpHeaders, maxHeaderSize } from 'node:http'

/** An answer that is not HTTP/1.1 as it must be: of what follows on its connection nobody knows what it means. */
export class BrokenAnswer extends Error {
  readonly code = 'BROKEN_ANSWER'

  /** @param what is wrong with it; nothing of its bytes. */
  constructor(what: string) {
    super(`The answer cannot be read: ${what}.`)
  }
}

/** A head is read in parts of so many bytes: most are not longer, and the body behind it need not become text. */
const partBytes = 512

/** Fields of one answer, with those of interim answers before it and those behind its last chunk. */
const maxFields = 256

const cr = 0x0d
const lf = 0x0a

/** Which bytes a value may have: HTAB, the space, visible ones, obs-text. */
export const isText = Array.from({ length: 256 }, (_, code) => code === 0x09 || (code >= 0x20 && code !== 0x7f))
/** Which a name. */
const isToken = Array.from({ length: 256 }, (_, code) => /[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(code)))

const statusLine = /^HTTP\/1\.[01] [1-9]\d\d(?: .*)?$/
/** What decides where an answer ends, as it stands behind the colon. Not every reader takes a tab for a blank there. */
const length = /^ *\d{1,15} *$/
const coding = /^ *chunked *$/i

/**
 * The head of an answer over HTTP/1.1, read line by line: status line and fields, or the fields behind a last chunk. Whatever
 * two readers of one answer might understand differently is refused (RFC 9112 §2.2, §5, §6.3): a line that a bare LF or CR
 * ends, a folded field, white space around a name, control characters, two lengths, a length beside a coding, a coding that
 * nobody asked for.
 */
export class HeadReader {
  /** 0 until the status line was read. */
  status = 0
  headers: IncomingHttpHeaders = {}
  /** Bytes of the body, where a field says so. */
  contentLength: number | undefined
  isChunked = false
  /** Values of the fields of these names. */
  connection = ''
  keepAlive = ''
  isVersion10 = false
  /** A line that has begun. */
  #rest = ''
  #bytes = 0
  #fields = 0

  /** Before an answer. */
  begin(): void {
    this.#bytes = 0
    this.#fields = 0
    this.#rest = ''
    this.beginNext()
  }

  /** After an interim answer, for the one that follows: what both take is limited together. */
  beginNext(): void {
    this.status = 0
    this.headers = {}
    this.contentLength = undefined
    this.isChunked = false
    this.connection = ''
    this.keepAlive = ''
    this.isVersion10 = false
  }

  /**
   * Reads on from `from`, up to `to`; where the head ended, the index behind it, and -1 when it goes on behind these bytes.
   * Throws {@link BrokenAnswer}.
   */
  read(bytes: Buffer, from: number, to: number): number {
    for (let at = from; at < to; at += partBytes) {
      const end = this.#take(bytes.toString('latin1', at, Math.min(to, at + partBytes)))
      if (end >= 0) return at + end
    }
    return -1
  }

  /** Reads on in a part of the head; where it ended, the index behind it, else -1. */
  #take(part: string): number {
    const carried = this.#rest.length
    const text = this.#rest + part
    // Of the carried text only a CR at its end has more to be said.
    let at = this.#rest.endsWith('\r') ? carried - 1 : carried
    let start = 0
    this.#rest = ''
    for (; at < text.length; at += 1) {
      const code = text.charCodeAt(at)
      if (isText[code]) continue
      if (code !== cr) throw new BrokenAnswer('a line of its head has a control character, or ends without CR')
      if (at + 1 === text.length) break
      if (text.charCodeAt(at + 1) !== lf) throw new BrokenAnswer('a line of its head has a CR that does not end it')
      this.#bytes += at + 2 - start
      if (this.#bytes > maxHeaderSize) throw tooLarge()
      if (at === start && this.status !== 0) return at + 2 - carried
      this.#line(text.slice(start, at))
      at += 1
      start = at + 1
    }
    this.#rest = text.slice(start)
    if (this.#bytes + this.#rest.length > maxHeaderSize) throw tooLarge()
    return -1
  }

  #line(line: string): void {
    if (this.status === 0) {
      if (!statusLine.test(line)) throw new BrokenAnswer('its first line is no status line of HTTP/1.0 or HTTP/1.1')
      this.isVersion10 = line.charCodeAt(7) === 0x30
      this.status = Number(line.slice(9, 12))
      return
    }
    this.#fields += 1
    if (this.#fields > maxFields) throw new BrokenAnswer(`it has more than ${maxFields} header fields`)
    const colon = nameEnd(line)
    if (colon === 0) throw new BrokenAnswer('a line of its head is no field: name, colon, value')
    const name = line.slice(0, colon).toLowerCase()
    const value = withoutBlanks(line, colon + 1)
    if (name === 'content-length') this.#length(line.slice(colon + 1))
    else if (name === 'transfer-encoding') this.#coding(line.slice(colon + 1))
    else if (name === 'connection') this.connection += `,${value}`
    else if (name === 'keep-alive') this.keepAlive += `,${value}`
    const { headers } = this
    const before = Object.hasOwn(headers, name) ? headers[name] : undefined
    if (before === undefined) headers[name] = value
    else if (typeof before === 'string') headers[name] = [before, value]
    else before.push(value)
  }

  #length(value: string): void {
    if (this.contentLength !== undefined) throw new BrokenAnswer('it has two content-length fields')
    if (this.isChunked) throw new BrokenAnswer('it has both content-length and transfer-encoding')
    if (!length.test(value)) throw new BrokenAnswer('its content-length is no number of bytes')
    this.contentLength = Number(value)
  }

  #coding(value: string): void {
    if (this.contentLength !== undefined) throw new BrokenAnswer('it has both content-length and transfer-encoding')
    if (this.isChunked || this.isVersion10 || !coding.test(value)) {
      throw new BrokenAnswer('its transfer-encoding is not chunked, once, in HTTP/1.1')
    }
    this.isChunked = true
  }
}

function tooLarge(): BrokenAnswer {
  return new BrokenAnswer(`its head has more than ${maxHeaderSize} bytes (node --max-http-header-size)`)
}

/** Where the colon behind a name is; 0 without both. */
function nameEnd(line: string): number {
  let at = 0
  while (isToken[line.charCodeAt(at)]) at += 1
  return line.charCodeAt(at) === 0x3a ? at : 0
}

/** The value that begins at `from`, without blanks around it. */
function withoutBlanks(line: string, from: number): string {
  let start = from
  let end = line.length
  while (start < end && isBlank(line.charCodeAt(start))) start += 1
  while (end > start && isBlank(line.charCodeAt(end - 1))) end -= 1
  return line.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}
