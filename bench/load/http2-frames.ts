/** The frames of HTTP/2 that a gRPC client needs (RFC 9113), and just as much of HPACK (RFC 7541). */

export const frameTypes = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const
export const endStream = 0x1
export const endHeaders = 0x4
export const acknowledged = 0x1
export const frameHeadLength = 9

/** One frame as bytes. */
export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(frameHeadLength + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes.writeUInt8(type, 3)
  bytes.writeUInt8(flags, 4)
  bytes.writeUInt32BE(stream, 5)
  payload.copy(bytes, frameHeadLength)
  return bytes
}

/** What a client sends first: its settings, and as much room for answers as there can be. */
export function opening(): Buffer {
  const settings = [
    // No dynamic table: what the server says can be read without having read all that it said before.
    [1, 0],
    [2, 0],
    [4, maxWindow],
  ] as const
  const fields = Buffer.alloc(6 * settings.length)
  settings.forEach(([id, value], index) => {
    fields.writeUInt16BE(id, index * 6)
    fields.writeUInt32BE(value, index * 6 + 2)
  })
  return Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    frame(frameTypes.settings, 0, 0, fields),
    windowUpdate(maxWindow - defaultWindow),
  ])
}

export const maxWindow = 2 ** 31 - 1
export const defaultWindow = 65_535

/** Gives the server room for so many more bytes on the connection. */
export function windowUpdate(bytes: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(bytes)
  return frame(frameTypes.windowUpdate, 0, 0, payload)
}

/**
 * The headers of equal requests: as the first request of a connection has them, which puts them into the server's table,
 * and as the others do, which name the places in it. As any client does it.
 */
export function encodeHeaders(headers: readonly (readonly [name: string, value: string])[]): {
  readonly first: Buffer
  readonly later: Buffer
} {
  // Of the static table: ":method POST" and ":scheme http".
  const fixed = Buffer.from([0x83, 0x86])
  const literals = headers.map(([name, value]) => Buffer.concat([Buffer.from([0x40]), text(name), text(value)]))
  const staticTableLength = 61
  // The table counts from the newest entry.
  const places = headers.map((_, index) => 0x80 | (staticTableLength + headers.length - index))
  return { first: Buffer.concat([fixed, ...literals]), later: Buffer.concat([fixed, Buffer.from(places)]) }
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  const prefixMax = 0x7f
  if (bytes.length < prefixMax) return Buffer.concat([Buffer.from([bytes.length]), bytes])
  const rest = bytes.length - prefixMax
  if (rest > 0x3fff) throw new Error('a header of the benchmark is too long')
  const length = rest < 0x80 ? [prefixMax, rest] : [prefixMax, 0x80 | (rest & 0x7f), rest >> 7]
  return Buffer.concat([Buffer.from(length), bytes])
}

/** "grpc-status" in HPACK's Huffman code, which the server takes because it is shorter. */
const grpcStatus = Buffer.from('889acac8b21234da8f', 'hex')

/** The grpc-status in a header block; undefined when there is none. */
export function readGrpcStatus(block: Buffer): string | undefined {
  const at = block.indexOf(grpcStatus)
  if (at < 0) return undefined
  const value = at + grpcStatus.length
  return block.toString('latin1', value + 1, value + 1 + block.readUInt8(value))
}
