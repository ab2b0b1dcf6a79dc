import { HpackDecoder } from './hpack-decoder.ts'
import { type RequestHead, readHead } from './request-head.ts'

/** What a request's headers, or its trailers, may take, as announced to the peer. */
export const headerListMaxBytes: number = 32 * 1024

/** A request's head, or why it has none. */
export type Head = RequestHead | 'malformed' | 'too large'

/**
 * The header blocks of a connection. Callers that repeat themselves, as all do in time, send blocks of the same bytes, which mean
 * the same as long as the dynamic table does not change: the last few are remembered with what they said.
 */
export class HeaderBlocks {
  readonly #decoder = new HpackDecoder()
  readonly #known: Known[] = []
  #next = 0

  /** What the block of a request says. Throws COMPRESSION_ERROR, as all here. */
  head(bytes: Buffer, from: number, to: number): Head {
    const { version } = this.#decoder
    for (const known of this.#known) {
      if (known.version === version && isSame(known.bytes, bytes, from, to)) return known.head
    }
    const list = this.#decoder.decode(bytes, from, to, headerListMaxBytes)
    if (list === undefined) return 'too large'
    const head = readHead(list) ?? 'malformed'
    if (version === this.#decoder.version)
      this.#remember({ version, bytes: Buffer.from(bytes.subarray(from, to)), head })
    return head
  }

  /** Names and values of any block; undefined when they are too many. */
  list(bytes: Buffer, from: number, to: number): string[] | undefined {
    return this.#decoder.decode(bytes, from, to, headerListMaxBytes)
  }

  #remember(known: Known): void {
    if (known.bytes.length > knownMaxBytes) return
    this.#known[this.#next] = known
    this.#next = (this.#next + 1) % maxKnown
  }
}

interface Known {
  /** Of the dynamic table. */
  readonly version: number
  readonly bytes: Buffer
  readonly head: Head
}

const maxKnown = 4
const knownMaxBytes = 1024

function isSame(known: Buffer, bytes: Buffer, from: number, to: number): boolean {
  if (known.length !== to - from) return false
  for (let at = 0; at < known.length; at++) if (known[at] !== bytes[from + at]) return false
  return true
}
