/**
 * Changes or drops one member of a JSON object in its bytes, and nothing else: unknown fields, their order, numbers beyond what
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

/**
 * The object without its members of this name, however often it occurs; the same bytes object when it has none. `bytes` as
 * for {@link setMember}.
 */
export function withoutMember(bytes: Uint8Array, name: string): Uint8Array {
  const kept: { start: number; end: number; next: number | undefined }[] = []
  let first: number | undefined
  let last = 0
  let isCut = false
  for (const { keyStart, keyEnd, end, next } of membersOf(bytes, bytes.indexOf(brace))) {
    first ??= keyStart
    last = end
    if (isKey(bytes, keyStart, keyEnd, name)) isCut = true
    else kept.push({ start: keyStart, end, next })
  }
  if (!isCut) return bytes
  // Each with the comma behind it, but for the one that is the last now.
  const members = kept.map(({ start, end, next }, index) =>
    bytes.subarray(start, index === kept.length - 1 ? end : (next ?? end)),
  )
  return Buffer.concat([bytes.subarray(0, first), ...members, bytes.subarray(last)])
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
  for (const { keyStart, keyEnd, start, end } of membersOf(bytes, objectStart)) {
    if (isKey(bytes, keyStart, keyEnd, name)) found = { start, end }
    isEmpty = false
    insertAt = end
  }
  return { found, insertAt, isEmpty }
}

interface Member {
  readonly keyStart: number
  readonly keyEnd: number
  /** Of the value. */
  readonly start: number
  readonly end: number
  /** Where the key of the next member begins; undefined of the last one. */
  readonly next: number | undefined
}

function* membersOf(bytes: Uint8Array, objectStart: number): Generator<Member, void> {
  let at: number | undefined = skipSpace(bytes, objectStart + 1)
  while (at !== undefined && bytes[at] === quote) {
    const keyEnd = skipString(bytes, at)
    const start = skipSpace(bytes, skipSpace(bytes, keyEnd) + 1)
    const end = skipValue(bytes, start)
    const comma = skipSpace(bytes, end)
    const next = bytes[comma] === 0x2c ? skipSpace(bytes, comma + 1) : undefined
    yield { keyStart: at, keyEnd, start, end, next }
    at = next
  }
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
