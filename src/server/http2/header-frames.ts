import { ConnectionError, calmDown, errorCodes, protocolError } from './error-codes.ts'
import { flags, frameTypes, priorityBytes, uint31, unpadded } from './frames.ts'
import { headerListMaxBytes } from './header-blocks.ts'

/** What a header block is of. */
export interface Block {
  readonly id: number
  /** Whether the request ends with it. */
  readonly isLast: boolean
  /** Whether it says that it depends on itself. */
  readonly isWrong: boolean
}

export interface BlockSink {
  /** The block is `bytes` from `from` until `to`. */
  onBlock(block: Block, bytes: Buffer, from: number, to: number): void
}

/** Header blocks as they come: in HEADERS, and CONTINUATION where one frame does not hold them (RFC 9113, sections 6.2 and 6.10). */
export class HeaderFrames {
  readonly #sink: BlockSink
  /** The block that is being continued. */
  #open: OpenBlock | undefined

  constructor(sink: BlockSink) {
    this.#sink = sink
  }

  /** Whether a frame comes where a block is to be continued, and does not continue it. */
  isInterruptedBy(type: number, id: number): boolean {
    return this.#open !== undefined && (type !== frameTypes.continuation || id !== this.#open.id)
  }

  onHeaders(flagBits: number, id: number, bytes: Buffer, start: number, to: number): void {
    if (id === 0) throw protocolError('HEADERS are for no stream')
    let { from, end } = unpadded(flagBits, bytes, start, to)
    let isWrong = false
    if ((flagBits & flags.priority) !== 0) {
      if (end - from < priorityBytes) throw new ConnectionError(errorCodes.frameSizeError, 'HEADERS are too short')
      isWrong = uint31(bytes, from) === id
      from += priorityBytes
    }
    const isLast = (flagBits & flags.endStream) !== 0
    if ((flagBits & flags.endHeaders) !== 0) return void this.#sink.onBlock({ id, isLast, isWrong }, bytes, from, end)
    this.#open = { id, isLast, isWrong, parts: [Buffer.from(bytes.subarray(from, end))], length: end - from }
  }

  onContinuation(flagBits: number, bytes: Buffer, from: number, to: number): void {
    const open = this.#open
    if (open === undefined) throw protocolError('CONTINUATION continues nothing')
    open.parts.push(Buffer.from(bytes.subarray(from, to)))
    open.length += to - from
    if (open.length > blockMaxBytes || open.parts.length > blockMaxFrames) {
      throw calmDown('a header block is too long')
    }
    if ((flagBits & flags.endHeaders) === 0) return
    this.#open = undefined
    this.#sink.onBlock(open, Buffer.concat(open.parts), 0, open.length)
  }
}

/** A block that is not there as a whole. */
interface OpenBlock extends Block {
  readonly parts: Buffer[]
  length: number
}

/** Compressed: Huffman may make a block longer than its list. */
const blockMaxBytes = 2 * headerListMaxBytes
const blockMaxFrames = 32
