/**
 * What leaves in one write. Frames are put one behind the other into a block of memory; only long parts of bodies stay where they
 * are. The block is used again as soon as the system took all of it, which it most often does at once.
 */
import type { Socket } from 'node:net'
import { frameHeadBytes, writeFrameHead } from './frames.ts'

export class Outbox {
  /** Where the next frame goes: reserve, write from `at` on, and move `at` to the end. */
  block: Buffer = noBlock
  at = 0
  /** Bytes that were put and not written. */
  get length(): number {
    return this.#before + this.at - this.#from
  }

  readonly #socket: Socket
  /** Where of the block what was put last begins. */
  #from = 0
  /** What comes before it, and its bytes. */
  #parts: Uint8Array[] = []
  #before = 0

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /** Makes room for `bytes` behind `at`. */
  reserve(bytes: number): void {
    if (this.block.length - this.at >= bytes) return
    this.#cut()
    this.block =
      bytes > blockBytes ? Buffer.allocUnsafeSlow(bytes) : (spare.pop() ?? Buffer.allocUnsafeSlow(blockBytes))
    this.at = 0
    this.#from = 0
  }

  /** Puts the head of a frame; its payload follows. */
  frameHead(length: number, type: number, flags: number, id: number): void {
    this.reserve(frameHeadBytes + (length > byReferenceBytes ? 0 : length))
    this.at = writeFrameHead(this.block, this.at, length, type, flags, id)
  }

  /** Puts bytes, which must not change any more, for which a frame's head reserved the room. */
  payload(bytes: Uint8Array, from: number, to: number): void {
    if (to - from > byReferenceBytes) {
      this.#cut()
      this.#parts.push(bytes.subarray(from, to))
      this.#before += to - from
      return
    }
    if (from === 0 && to === bytes.length) this.block.set(bytes, this.at)
    else this.block.set(bytes.subarray(from, to), this.at)
    this.at += to - from
  }

  /** Writes all that was put. */
  flush(): void {
    if (this.length === 0) return
    if (this.#before === 0) {
      this.#socket.write(this.block.subarray(this.#from, this.at))
      this.#from = this.at
    } else {
      this.#cut()
      this.#socket.cork()
      for (const part of this.#parts) this.#socket.write(part)
      this.#socket.uncork()
      this.#parts = []
      this.#before = 0
    }
    if (this.#socket.writableLength > 0) return
    if (spare.length < maxSpare && this.block.length === blockBytes) spare.push(this.block)
    this.block = noBlock
    this.at = 0
    this.#from = 0
  }

  /** Closes what was put last, so that something can follow from elsewhere. */
  #cut(): void {
    if (this.at === this.#from) return
    this.#parts.push(this.block.subarray(this.#from, this.at))
    this.#before += this.at - this.#from
    this.#from = this.at
  }
}

const noBlock: Buffer = Buffer.alloc(0)
const blockBytes = 65_536

/** Shorter parts are cheaper to copy than to write by themselves. */
const byReferenceBytes = 4096

/** Blocks that no connection has at the moment. */
const spare: Buffer[] = []
const maxSpare = 8
