import { STATUS_CODES } from 'node:http'
import type { Trailers } from '../exchange.ts'
import { httpDate } from '../http-date.ts'

/** Lines of a head that are the same for all answers of a second, as Node writes them. */
export class CommonLines {
  readonly #keepAlive: string
  #moment = ''
  #date = ''
  #kept = ''
  #closing = ''

  constructor(keepAliveMs: number) {
    this.#keepAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n`
  }

  /** Of an answer that says by itself what becomes of the connection. */
  get date(): string {
    this.#refresh()
    return this.#date
  }

  /** Of an answer after which the connection is kept. */
  get kept(): string {
    this.#refresh()
    return this.#kept
  }

  /** Of an answer whose caller asked for it to be the last one. */
  get closing(): string {
    this.#refresh()
    return this.#closing
  }

  #refresh(): void {
    const moment = httpDate()
    if (moment === this.#moment) return
    this.#moment = moment
    this.#date = `Date: ${moment}\r\n`
    this.#kept = this.#date + this.#keepAlive
    this.#closing = `${this.#date}Connection: close\r\n`
  }
}

/** The first line of an answer. */
export function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'unknown'}\r\n`
}

/** A line for each header. Throws for names and values that would be more than that. */
export function headerLines(list: readonly string[]): string {
  let lines = ''
  for (let at = 0; at < list.length; at += 2) lines += headerLine(list[at] ?? '', list[at + 1] ?? '')
  return lines
}

/** The same of trailers. */
export function trailerLines(trailers: Trailers): string {
  let lines = ''
  for (const name in trailers) lines += headerLine(name, trailers[name] ?? '')
  return lines
}

function headerLine(name: string, value: string): string {
  if (!isName(name) || notOneLine.test(value))
    throw new Error(`the answer cannot have this value in its header ${name}`)
  return `${name}: ${value}\r\n`
}

function isName(name: string): boolean {
  if (names.has(name)) return true
  if (!token.test(name)) return false
  if (names.size < maxNames) names.add(name)
  return true
}

/** Names that were looked at. They are few: each is written somewhere in the code. */
const names = new Set<string>()
const maxNames = 1_000

/** RFC 9110 §5.6.2, and what §5.5 does not allow. */
const token = /^[!#$%&'*+\-.^_`|~\dA-Za-z]+$/
const notOneLine = /[^\t\x20-\x7e\x80-\xff]/
