import { frame, mostFrameBytes, type Payload, writeFrame } from './segment-frames.ts'

/** What one write takes, which is more than the calls of a turn have; a larger record is written alone. */
const blockBytes = 1024 * 1024

interface Block<Entry> {
  readonly memory: Buffer
  size: number
  readonly entries: Entry[]
}

/** Records that are to be written: framed where they are written from, in order, each with an entry that stands for it. */
export class SegmentQueue<Entry> {
  readonly #blocks: Block<Entry>[] = []
  /** Memory of a block that was written, for the next one: nearly always one is enough. Of it, only what was used is resident. */
  #spare: Buffer | undefined
  #length = 0
  #bytes = 0

  /** Records. */
  get length(): number {
    return this.#length
  }

  /** Of all records. */
  get bytes(): number {
    return this.#bytes
  }

  /** Throws a RangeError when the record is empty or too large; then it is not in the queue. */
  push(payload: Payload, entry: Entry): void {
    const most = mostFrameBytes(payload)
    if (most > blockBytes) {
      const memory = frame(payload)
      this.#blocks.push({ memory, size: memory.length, entries: [entry] })
      this.#bytes += memory.length
    } else {
      const block = this.#blockFor(most)
      const end = writeFrame(block.memory, block.size, payload)
      this.#bytes += end - block.size
      block.size = end
      block.entries.push(entry)
    }
    this.#length += 1
  }

  /** The oldest records, as they are to be written together; undefined when there are none. */
  first(): Uint8Array | undefined {
    const [block] = this.#blocks
    return block?.memory.subarray(0, block.size)
  }

  /** Takes them off the queue. Their memory is used again. */
  shift(): readonly Entry[] {
    const block = this.#blocks.shift()
    if (block === undefined) return []
    this.#length -= block.entries.length
    this.#bytes -= block.size
    if (block.memory.length === blockBytes) this.#spare = block.memory
    return block.entries
  }

  /** Takes all records off the queue. */
  clear(): readonly Entry[] {
    const entries = this.#blocks.flatMap((block) => block.entries)
    while (this.#blocks.length > 0) this.shift()
    return entries
  }

  #blockFor(bytes: number): Block<Entry> {
    const last = this.#blocks.at(-1)
    if (last !== undefined && last.size + bytes <= last.memory.length) return last
    const block = { memory: this.#spare ?? Buffer.allocUnsafeSlow(blockBytes), size: 0, entries: [] }
    this.#spare = undefined
    this.#blocks.push(block)
    return block
  }
}
