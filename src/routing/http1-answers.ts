import type { IncomingHttpHeaders } from 'node:http'
import { BrokenAnswer, HeadReader, isText } from './http1-head.ts'

/** Told of an answer, in this order; after `onEnd` or `onBroken` of nothing until the next one is begun. */
export interface AnswerSink {
  /** Interim answers are passed over. */
  onHead(status: number, headers: IncomingHttpHeaders): void
  /** The sink's own. */
  onBody(chunk: Buffer): void
  /**
   * @param isReusable whether the connection may have another request.
   * @param keepAliveMs how long the other side says that it keeps it; undefined when it says nothing.
   */
  onEnd(trailers: IncomingHttpHeaders, isReusable: boolean, keepAliveMs: number | undefined): void
  /** It cannot be read, or ended too early. */
  onBroken(error: Error): void
}

/** What comes next on the connection. */
type Awaited = 'nothing' | 'head' | 'counted' | 'until close' | 'chunk size' | 'chunk' | 'chunk end' | 'trailers'

/** Beyond these a chunk is larger than a number counts exactly. */
const maxSizeDigits = 13
const maxExtensionBytes = 256

/** RFC 9112 §7.1.1: `;name`, `;name=value` or `;name="value"`, any number of them. */
const extensions = /^(?:;[!#$%&'*+\-.^_`|~\w]+(?:=(?:[!#$%&'*+\-.^_`|~\w]+|"(?:[^"\\]|\\.)*"))?)*$/

const cr = 0x0d
const lf = 0x0a
const semicolon = 0x3b
const noTrailers: IncomingHttpHeaders = Object.freeze({})

/**
 * Reads answers over HTTP/1.1 (RFC 9112) from the bytes of a connection, one for each request, the same however the bytes are
 * cut. One reader serves all answers of a connection, and makes nothing a call but the fields and the body.
 */
export class AnswerReader {
  readonly #sink: AnswerSink
  readonly #head = new HeadReader()
  #awaited: Awaited = 'nothing'
  /** Bytes of the body, or of its chunk, that have not come yet. */
  #left = 0
  #sizeDigits = 0
  #extension = ''
  #hasCr = false
  #isKept = false
  /** At hand. */
  #bytes: Buffer = Buffer.alloc(0)
  #length = 0
  /** The part of them that is body and waits to be told: chunks of one read are told as one. */
  #bodyStart = 0
  #bodyEnd = 0

  constructor(sink: AnswerSink) {
    this.#sink = sink
  }

  /** The next bytes are those of an answer. */
  begin(): void {
    this.#head.begin()
    this.#awaited = 'head'
  }

  /** Takes in the first `length` bytes, which came while an answer was awaited. They are the reader's, and may change. */
  push(bytes: Buffer, length: number): void {
    this.#bytes = bytes
    this.#length = length
    try {
      let at = 0
      while (at < length && this.#awaited !== 'nothing') at = this.#read(at)
      this.#tellBody()
    } catch (error) {
      if (!(error instanceof BrokenAnswer)) throw error
      this.#break(error)
    }
  }

  /** The other side has ended the connection. */
  finish(): void {
    if (this.#awaited === 'until close') this.#end(noTrailers, false)
    else if (this.#awaited !== 'nothing') this.#break(new BrokenAnswer('the connection ended before it did'))
  }

  /** Reads on from `at`; returns the index behind what it took. */
  #read(at: number): number {
    switch (this.#awaited) {
      case 'head':
        return this.#readHead(at)
      case 'counted':
      case 'chunk':
        return this.#readBody(at)
      case 'until close':
        this.#takeBody(at, this.#length)
        return this.#length
      case 'chunk size':
        return this.#readSize(at)
      case 'chunk end':
        return this.#readLineEnd(at)
      case 'trailers':
        return this.#readTrailers(at)
      case 'nothing':
        return this.#length
    }
  }

  #readHead(from: number): number {
    const head = this.#head
    const at = head.read(this.#bytes, from, this.#length)
    if (at < 0) return this.#length
    const { status, contentLength = 0, isChunked } = head
    if (status < 200) {
      const goesOn = status !== 101 && head.contentLength === undefined && !isChunked && staysOpen(head)
      if (!goesOn) throw new BrokenAnswer(`nothing can follow its interim answer with status ${status}`)
      head.beginNext()
      return at
    }
    const hasNoBody = status === 204 || status === 304
    const isDelimited = isChunked || head.contentLength !== undefined
    // A body that there should not be would be read as the next answer.
    this.#isKept = staysOpen(head) && (hasNoBody ? !isChunked && contentLength === 0 : isDelimited)
    this.#sink.onHead(status, head.headers)
    if (hasNoBody || head.contentLength === 0) this.#end(noTrailers, at === this.#length)
    else if (isChunked) this.#awaitSize()
    else if (head.contentLength === undefined) this.#awaited = 'until close'
    else {
      this.#left = contentLength
      this.#awaited = 'counted'
    }
    return at
  }

  #readBody(from: number): number {
    const at = Math.min(this.#length, from + this.#left)
    this.#takeBody(from, at)
    this.#left -= at - from
    if (this.#left > 0) return at
    if (this.#awaited === 'chunk') this.#awaited = 'chunk end'
    else this.#end(noTrailers, at === this.#length)
    return at
  }

  #awaitSize(): void {
    this.#left = 0
    this.#sizeDigits = 0
    this.#extension = ''
    this.#hasCr = false
    this.#awaited = 'chunk size'
  }

  /** Extensions of a chunk are passed over. */
  #readSize(from: number): number {
    for (let at = from; at < this.#length; at += 1) {
      const byte = this.#bytes[at] ?? 0
      if (this.#hasCr || byte === cr) {
        if (this.#sizeDigits === 0) throw new BrokenAnswer('a chunk has no size')
        if (!this.#endLine(byte)) continue
        if (!extensions.test(this.#extension)) throw badExtension()
        if (this.#left > 0) this.#awaited = 'chunk'
        else this.#awaitTrailers()
        return at + 1
      }
      if (this.#extension !== '' || (byte === semicolon && this.#sizeDigits > 0)) this.#takeExtension(byte)
      else this.#takeDigit(byte)
    }
    return this.#length
  }

  #takeDigit(byte: number): void {
    const digit = hexDigit(byte)
    this.#sizeDigits += 1
    if (digit < 0 || this.#sizeDigits > maxSizeDigits)
      throw new BrokenAnswer('the size of a chunk is no number of bytes')
    this.#left = this.#left * 16 + digit
  }

  #takeExtension(byte: number): void {
    this.#extension += String.fromCharCode(byte)
    if (!isText[byte] || this.#extension.length > maxExtensionBytes) throw badExtension()
  }

  #readLineEnd(from: number): number {
    for (let at = from; at < this.#length; at += 1) {
      if (!this.#endLine(this.#bytes[at] ?? 0)) continue
      this.#awaitSize()
      return at + 1
    }
    return this.#length
  }

  /** Takes CR, then LF, and nothing else; true behind them. */
  #endLine(byte: number): boolean {
    if (byte !== (this.#hasCr ? lf : cr))
      throw new BrokenAnswer('a chunk, or the line of its size, does not end with CRLF')
    this.#hasCr = !this.#hasCr
    return !this.#hasCr
  }

  #awaitTrailers(): void {
    this.#head.headers = {}
    this.#awaited = 'trailers'
  }

  #readTrailers(from: number): number {
    const at = this.#head.read(this.#bytes, from, this.#length)
    if (at < 0) return this.#length
    this.#end(this.#head.headers, at === this.#length)
    return at
  }

  /** Moves a part of the body to what waits to be told, which it follows in all but chunks. */
  #takeBody(from: number, to: number): void {
    if (this.#bodyEnd === 0) this.#bodyStart = this.#bodyEnd = from
    if (this.#bodyEnd !== from) this.#bytes.copyWithin(this.#bodyEnd, from, to)
    this.#bodyEnd += to - from
  }

  #tellBody(): void {
    const start = this.#bodyStart
    const end = this.#bodyEnd
    if (end === start) return
    this.#bodyStart = this.#bodyEnd = 0
    const chunk = Buffer.allocUnsafe(end - start)
    this.#bytes.copy(chunk, 0, start, end)
    this.#sink.onBody(chunk)
  }

  /** @param isAll whether nothing came behind it: it would be an answer that nobody asked for. */
  #end(trailers: IncomingHttpHeaders, isAll: boolean): void {
    this.#tellBody()
    this.#awaited = 'nothing'
    this.#sink.onEnd(trailers, isAll && this.#isKept, keepAliveOf(this.#head.keepAlive))
  }

  #break(error: BrokenAnswer): void {
    this.#tellBody()
    this.#awaited = 'nothing'
    this.#sink.onBroken(error)
  }
}

/** Whether the other side leaves the connection open, by what it says. */
function staysOpen({ isVersion10, connection }: HeadReader): boolean {
  return isVersion10 ? keepsOpen.test(connection) : !closes.test(connection)
}

const keepsOpen = /(?:^|,)[\t ]*keep-alive[\t ]*(?:,|$)/i
const closes = /(?:^|,)[\t ]*close[\t ]*(?:,|$)/i
const keptSeconds = /(?:^|,)[\t ]*timeout=(\d{1,9})/i

function keepAliveOf(parameters: string): number | undefined {
  if (parameters === '') return undefined
  const seconds = keptSeconds.exec(parameters)?.[1]
  return seconds === undefined ? undefined : Number(seconds) * 1_000
}

function badExtension(): BrokenAnswer {
  return new BrokenAnswer(`what follows the size of a chunk is no extension of ${maxExtensionBytes} bytes or less`)
}

/** -1 for what is none. */
function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}
