/** Frames of HTTP/2 (RFC 9113, sections 4 and 6), as bytes: what they mean is connection.ts's and streams.ts's. */
import { ConnectionError, errorCodes, protocolError } from './error-codes.ts'

export const frameTypes = {
  data: 0x0,
  headers: 0x1,
  priority: 0x2,
  rstStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goAway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
} as const

export const flags = { ack: 0x1, endStream: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const

export const settingIds = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
} as const

/** What every connection begins with, before the first frame of its client. */
export const preface: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export const frameHeadBytes = 9

/** Longest payload, both ways: what every peer takes, and what streams that share a connection are served in turns of. */
export const frameMaxBytes = 16_384

/** What HEADERS and PRIORITY say of a stream's priority, which nobody heeds. */
export const priorityBytes = 5

export const maxWindow = 2 ** 31 - 1

/** Of streams and connections, where nothing else was said. */
export const defaultWindow = 65_535

export interface FrameSink {
  /** The payload is `bytes` from `from` until `to`. */
  frame(type: number, flags: number, id: number, bytes: Buffer, from: number, to: number): void
}

/** Finds the frames in what comes, however it is cut. */
export class FrameReader {
  readonly #sink: FrameSink
  /** What came of a frame that is not there as a whole, and how much that is. */
  #held: Buffer = noBuffer
  #heldBytes = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Tells the sink of each frame that is there as a whole. Throws FRAME_SIZE_ERROR as soon as a frame says that it is too long. */
  read(chunk: Buffer): void {
    let at = this.#heldBytes === 0 ? 0 : this.#complete(chunk)
    while (chunk.length - at >= frameHeadBytes) {
      const end = at + frameBytes(chunk, at)
      if (end > chunk.length) break
      this.#tell(chunk, at, end)
      at = end
    }
    // Copied, or one byte could hold on to all that came with it.
    if (at < chunk.length) this.#hold(chunk, at, frameHeadBytes + frameMaxBytes)
  }

  /** Adds to the frame that is held what belongs to it, and returns where the next one begins. */
  #complete(chunk: Buffer): number {
    let at = this.#hold(chunk, 0, frameHeadBytes)
    if (this.#heldBytes < frameHeadBytes) return at
    const length = frameBytes(this.#held, 0)
    at = this.#hold(chunk, at, length)
    if (this.#heldBytes < length) return at
    const frame = this.#held
    this.#held = noBuffer
    this.#heldBytes = 0
    this.#tell(frame, 0, length)
    return at
  }

  /** Holds what begins at `at` until `upTo` bytes are held, and returns where it ended. */
  #hold(chunk: Buffer, at: number, upTo: number): number {
    const end = Math.min(chunk.length, at + Math.max(0, upTo - this.#heldBytes))
    const needed = this.#heldBytes + end - at
    if (needed > this.#held.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#held.length))
      this.#held.copy(larger, 0, 0, this.#heldBytes)
      this.#held = larger
    }
    chunk.copy(this.#held, this.#heldBytes, at, end)
    this.#heldBytes = needed
    return end
  }

  #tell(bytes: Buffer, at: number, end: number): void {
    this.#sink.frame(bytes[at + 3] ?? 0, bytes[at + 4] ?? 0, uint31(bytes, at + 5), bytes, at + frameHeadBytes, end)
  }
}

const noBuffer: Buffer = Buffer.alloc(0)

/** Of a frame with its head. */
function frameBytes(bytes: Buffer, at: number): number {
  const length = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0)
  if (length > frameMaxBytes) throw new ConnectionError(errorCodes.frameSizeError, `a frame has ${length} bytes`)
  return frameHeadBytes + length
}

/** The part of a payload that is not padding. */
export function unpadded(flagBits: number, bytes: Buffer, from: number, to: number): { from: number; end: number } {
  if ((flagBits & flags.padded) === 0) return { from, end: to }
  const padding = bytes[from] ?? 0
  if (padding >= to - from) throw protocolError('a frame is nothing but padding')
  return { from: from + 1, end: to - padding }
}

export function expectLength(length: number, expected: number): void {
  if (length !== expected) throw new ConnectionError(errorCodes.frameSizeError, 'a frame has the wrong length')
}

/** Four bytes without the first bit, which is reserved. */
export function uint31(bytes: Buffer, at: number): number {
  return (
    (((bytes[at] ?? 0) & 0x7f) << 24) |
    ((bytes[at + 1] ?? 0) << 16) |
    ((bytes[at + 2] ?? 0) << 8) |
    (bytes[at + 3] ?? 0)
  )
}

export function uint32(bytes: Buffer, at: number): number {
  return uint31(bytes, at) + ((bytes[at] ?? 0) >= 0x80 ? 2 ** 31 : 0)
}

export function writeUint32(target: Buffer, at: number, value: number): number {
  target[at] = value >>> 24
  target[at + 1] = value >>> 16
  target[at + 2] = value >>> 8
  target[at + 3] = value
  return at + 4
}

/** Writes the head of a frame, and returns where its payload goes. */
export function writeFrameHead(
  target: Buffer,
  at: number,
  length: number,
  type: number,
  flagBits: number,
  id: number,
): number {
  target[at] = length >>> 16
  target[at + 1] = length >>> 8
  target[at + 2] = length
  target[at + 3] = type
  target[at + 4] = flagBits
  return writeUint32(target, at + 5, id)
}
