import { crc32 } from 'node:zlib'

/** Bytes before each payload: its length and its CRC-32, both unsigned, little endian. */
const frameHeaderBytes = 8

/** Largest payload; a length beyond it can only be garbage. */
export const maxPayloadBytes = 32 * 1024 * 1024

const noBytes = new Uint8Array()

/** A payload as it stands in a segment: text, and bytes after it. Throws a RangeError when it is empty or too large. */
export function frame(text: string, bytes: Uint8Array = noBytes): Buffer {
  const textLength = Buffer.byteLength(text)
  const length = textLength + bytes.length
  if (length === 0 || length > maxPayloadBytes) throw new RangeError(`a record of ${length} bytes cannot be stored`)
  const framed = Buffer.allocUnsafe(frameHeaderBytes + length)
  framed.write(text, frameHeaderBytes)
  framed.set(bytes, frameHeaderBytes + textLength)
  framed.writeUInt32LE(length, 0)
  framed.writeUInt32LE(crc32(framed.subarray(frameHeaderBytes)), 4)
  return framed
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
