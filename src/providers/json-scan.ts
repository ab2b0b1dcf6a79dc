/** Steps through JSON in its bytes, without parsing it. */

export const brace = 0x7b
export const bracket = 0x5b
export const closingBrace = 0x7d
export const closingBracket = 0x5d
export const colon = 0x3a
export const quote = 0x22
const backslash = 0x5c

/** The first place from `from` on that is no white space. */
export function skipSpace(bytes: Uint8Array, from: number): number {
  let at = from
  while (isSpace(bytes[at])) at += 1
  return at
}

export function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

/** Whether a quote is part of a string: it has an odd number of backslashes before it. */
export function isEscaped(bytes: Uint8Array, at: number): boolean {
  let escapes = 0
  while (bytes[at - 1 - escapes] === backslash) escapes += 1
  return escapes % 2 === 1
}

/** Behind the string that begins at `from`. */
export function skipString(bytes: Uint8Array, from: number): number {
  for (let end = bytes.indexOf(quote, from + 1); end >= 0; end = bytes.indexOf(quote, end + 1)) {
    if (!isEscaped(bytes, end)) return end + 1
  }
  return bytes.length
}

/** Behind the value that begins at `from`; for a number or a word, that is where its object or list goes on or ends. */
export function skipValue(bytes: Uint8Array, from: number): number {
  let depth = 0
  for (let at = from; at < bytes.length; ) {
    const byte = bytes[at]
    if (byte === quote) {
      at = skipString(bytes, at)
      if (depth === 0) return at
      continue
    }
    if (byte === brace || byte === bracket) depth += 1
    else if (byte === closingBrace || byte === closingBracket) {
      // The end of the object around a number or a word.
      if (depth === 0) return at
      depth -= 1
      if (depth === 0) return at + 1
    } else if (depth === 0 && (byte === 0x2c || isSpace(byte))) {
      return at
    }
    at += 1
  }
  return bytes.length
}
