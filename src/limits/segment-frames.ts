import { crc32 } from 'node:zlib'

/** Bytes before each payload: its length and its CRC-32, both unsigned, little endian. */
const frameHeaderBytes = 8

/** A character of a string is never more in UTF-8. */
export const mostCharacterBytes = 3

/** Largest payload; a length beyond it can only be garbage. */
export const maxPayloadBytes = 32 * 1024 * 1024

/** A record: text, and bytes after it. */
export interface Payload {
  readonly text: string
  readonly bytes?: Uint8Array | undefined
}

/** No frame of this payload is larger; to count its bytes takes longer. Throws a RangeError when it is empty. */
export function mostFrameBytes({ text, bytes }: Payload): number {
  const most = text.length * mostCharacterBytes + (bytes?.length ?? 0)
  if (most === 0) throw sizeError(0)
  return frameHeaderBytes + most
}

/** A payload as it stands in a segment, in memory of its own. Throws a RangeError when it is empty or too large. */
export function frame(payload: Payload): Buffer {
  const length = Buffer.byteLength(payload.text) + (payload.bytes?.length ?? 0)
  if (length === 0 || length > maxPayloadBytes) throw sizeError(length)
  const framed = Buffer.allocUnsafe(frameHeaderBytes + length)
  writeFrame(framed, 0, payload)
  return framed
}

/** Writes a payload as it stands in a segment into memory that has room for it, and returns where it ends. */
export function writeFrame(memory: Buffer, at: number, { text, bytes }: Payload): number {
  const from = at + frameHeaderBytes
  let end = from + memory.write(text, from)
  // Of the text, which are the same bytes: a view of those for each record takes longer.
  let check = crc32(text)
  if (bytes !== undefined) {
    memory.set(bytes, end)
    end += bytes.length
    check = crc32(bytes, check)
  }
  memory.writeUInt32LE(end - from, at)
  memory.writeUInt32LE(check, at + 4)
  return end
}

/**
 * Payloads up to the first frame that is not whole, and where it begins; they share the memory of `bytes`. A frame of
 * length 0 is never whole: a file system may leave zeros where a write did not arrive, and the CRC of nothing is 0.
 */
export function unframe(bytes: Buffer): { payloads: Buffer[]; end: number } {
  const payloads: Buffer[] = []
  let end = 0
  while (bytes.length - end >= frameHeaderBytes) {
    const length = bytes.readUInt32LE(end)
    const from = end + frameHeaderBytes
    if (length === 0 || length > maxPayloadBytes || from + length > bytes.length) break
    const payload = bytes.subarray(from, from + length)
    if (crc32(payload) !== bytes.readUInt32LE(end + 4)) break
    payloads.push(payload)
    end = from + length
  }
  return { payloads, end }
}

function sizeError(length: number): RangeError {
  return new RangeError(`a record of ${length} bytes cannot be stored`)
}
