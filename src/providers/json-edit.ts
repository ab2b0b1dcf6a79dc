/**
 * Changes one member of a JSON object in its bytes, and nothing else: unknown fields, their order, numbers beyond what
 * JavaScript holds, and white space stay as the caller wrote them. Parsing and printing again would keep none of that.
 */

/**
 * The object with the member at `path` set to `json`; the same bytes object when it has that very text already. Objects
 * on the way that are missing, or are no objects, are made. Of a name that occurs twice the last one counts, as in
 * JSON.parse. `bytes` must be a JSON object, which the caller has checked by parsing it.
 */
export function setMember(bytes: Uint8Array, path: readonly [string, ...string[]], json: string): Uint8Array {
  return setWithin(bytes, bytes.indexOf(brace), path, json)
}

function setWithin(
  bytes: Uint8Array,
  objectStart: number,
  [name, ...rest]: readonly [string, ...string[]],
  json: string,
): Uint8Array {
  const { found, insertAt, isEmpty } = scanObject(bytes, objectStart, name)
  const [next, ...later] = rest
  if (found === undefined) {
    const comma = isEmpty ? '' : ','
    return splice(bytes, insertAt, insertAt, `${comma}${JSON.stringify(name)}:${nested(rest, json)}`)
  }
  if (next !== undefined && bytes[found.start] === brace) return setWithin(bytes, found.start, [next, ...later], json)
  return splice(bytes, found.start, found.end, nested(rest, json))
}

function nested(path: readonly string[], json: string): string {
  return path.reduceRight((inner, name) => `{${JSON.stringify(name)}:${inner}}`, json)
}

const encoder = new TextEncoder()

function splice(bytes: Uint8Array, start: number, end: number, text: string): Uint8Array {
  const inserted = encoder.encode(text)
  if (Buffer.compare(bytes.subarray(start, end), inserted) === 0) return bytes
  const result = new Uint8Array(bytes.length - (end - start) + inserted.length)
  result.set(bytes.subarray(0, start))
  result.set(inserted, start)
  result.set(bytes.subarray(end), start + inserted.length)
  return result
}

interface ObjectScan {
  /** Where the value of the last member of that name is. */
  readonly found: { readonly start: number; readonly end: number } | undefined
  /** Behind the last member, or behind the opening brace. */
  readonly insertAt: number
  readonly isEmpty: boolean
}

const brace = 0x7b
const quote = 0x22
const backslash = 0x5c

function scanObject(bytes: Uint8Array, objectStart: number, name: string): ObjectScan {
  let found: ObjectScan['found']
  let insertAt = objectStart + 1
  let isEmpty = true
  let at = skipSpace(bytes, insertAt)
  while (bytes[at] === quote) {
    const keyEnd = skipString(bytes, at)
    const isNamed = isKey(bytes, at, keyEnd, name)
    const start = skipSpace(bytes, skipSpace(bytes, keyEnd) + 1)
    const end = skipValue(bytes, start)
    if (isNamed) found = { start, end }
    isEmpty = false
    insertAt = end
    // Behind the comma, or on the closing brace plus one, where no quote can stand.
    at = skipSpace(bytes, end)
    if (bytes[at] !== 0x2c) break
    at = skipSpace(bytes, at + 1)
  }
  return { found, insertAt, isEmpty }
}

function isKey(bytes: Uint8Array, start: number, end: number, name: string): boolean {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString()
  // A key may be written with escapes.
  return text.includes('\\') ? JSON.parse(text) === name : text === `"${name}"`
}

function skipSpace(bytes: Uint8Array, from: number): number {
  let at = from
  while (bytes[at] === 0x20 || bytes[at] === 0x0a || bytes[at] === 0x0d || bytes[at] === 0x09) at += 1
  return at
}

/** Behind the string that begins at `from`. */
function skipString(bytes: Uint8Array, from: number): number {
  for (let end = bytes.indexOf(quote, from + 1); ; end = bytes.indexOf(quote, end + 1)) {
    if (end < 0) return bytes.length
    let escapes = 0
    while (bytes[end - 1 - escapes] === backslash) escapes += 1
    if (escapes % 2 === 0) return end + 1
  }
}

function skipValue(bytes: Uint8Array, from: number): number {
  let depth = 0
  for (let at = from; at < bytes.length; ) {
    const byte = bytes[at]
    if (byte === quote) {
      at = skipString(bytes, at)
      if (depth === 0) return at
      continue
    }
    if (byte === brace || byte === 0x5b) depth += 1
    else if (byte === 0x7d || byte === 0x5d) {
      // The end of the object around a number or a word.
      if (depth === 0) return at
      depth -= 1
      if (depth === 0) return at + 1
    } else if (depth === 0 && (byte === 0x2c || byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09)) {
      return at
    }
    at += 1
  }
  return bytes.length
}
