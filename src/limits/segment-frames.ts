import { crc32 } from 'node:zlib'

/** Bytes before each payload: its length and its CRC-32, both unsigned, little endian. */
export const frameHeaderBytes = 8

/** Largest payload; a length beyond it can only be garbage. */
export const maxPayloadBytes = 4 * 1024 * 1024

/** A payload as it stands in a segment. */
export function frame(payload: string): Buffer {
  const length = Buffer.byteLength(payload)
  if (length === 0 || length > maxPayloadBytes) throw new RangeError(`a record of ${length} bytes cannot be stored`)
  const bytes = Buffer.allocUnsafe(frameHeaderBytes + length)
  bytes.write(payload, frameHeaderBytes)
  bytes.writeUInt32LE(length, 0)
  bytes.writeUInt32LE(crc32(bytes.subarray(frameHeaderBytes)), 4)
  return bytes
}

/**
 * Payloads up to the first frame that is not whole, and where it begins. A frame of length 0 is never whole: a file
 * system may leave zeros where a write did not arrive, and the CRC of nothing is 0.
 */
export function unframe(bytes: Buffer): { payloads: string[]; end: number } {
  const payloads: string[] = []
  let end = 0
  while (bytes.length - end >= frameHeaderBytes) {
    const length = bytes.readUInt32LE(end)
    const from = end + frameHeaderBytes
    if (length === 0 || length > maxPayloadBytes || from + length > bytes.length) break
    const payload = bytes.subarray(from, from + length)
    if (crc32(payload) !== bytes.readUInt32LE(end + 4)) break
    payloads.push(payload.toString())
    end = from + length
  }
  return { payloads, end }
}
