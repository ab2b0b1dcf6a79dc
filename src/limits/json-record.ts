import type { Payload } from './segment-frames.ts'

/**
 * A record as it stands in a segment: one line of JSON, and after the end of that line bytes as they are. Bytes and not
 * base64 in the JSON: for an answer of 1, 16 and 256 KiB, encoding and decoding take 12, 20 and 250 µs of a core instead
 * of 17, 110 and 2700, and the file does not grow by a third.
 */
export function encodeJson(value: object, bytes?: Uint8Array): Payload {
  return encodeLine(JSON.stringify(value), bytes)
}

/** The same of JSON that is made already. */
export function encodeLine(json: string, bytes?: Uint8Array): Payload {
  return bytes === undefined ? { text: json } : { text: `${json}\n`, bytes }
}

/** What {@link encodeJson} wrote; `value` is undefined when the payload is no JSON. Keeps nothing of the payload's memory. */
export function decodeJson(payload: Buffer): { value: unknown; bytes?: Uint8Array } {
  const lineEnd = payload.indexOf(0x0a)
  const value = parse(payload.toString('utf8', 0, lineEnd < 0 ? payload.length : lineEnd))
  return lineEnd < 0 ? { value } : { value, bytes: Uint8Array.from(payload.subarray(lineEnd + 1)) }
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}
