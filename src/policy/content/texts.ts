/**
 * The texts of a payload, where they stand in it, and how to write others in their place. Of JSON these are the string
 * values (names of members are no text); anything else is one text as a whole. What is not replaced stays byte for byte.
 */

export interface Text {
  readonly value: string
  /** Where the text begins and ends in the source, without its quotes. */
  readonly start: number
  readonly end: number
  /** Where each character of `value` stands in the source, and the end; undefined when they stand there one by one. */
  readonly offsets: Uint32Array | undefined
}

export interface Texts {
  /** The payload as text. */
  readonly source: string
  readonly texts: readonly Text[]
  /** False for bytes that are no UTF-8: the source is then a guess, and nothing can be written into it. */
  readonly isWritable: boolean
}

/** A part of a text, in characters of its value, and what stands there instead. */
export interface Replacement {
  readonly text: Text
  readonly start: number
  readonly end: number
  /** Must need no escape in JSON. */
  readonly by: string
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Finds the texts of a payload. Data URLs in base64 (images, files) are left out: nothing can be found in them. What looks like
 * JSON and is none to JSON.parse may be some to a backend, with escapes that it decodes: of that the strings are texts, too,
 * beside the whole.
 */
export function textsOf(payload: Uint8Array): Texts {
  const source = decoded(payload)
  if (source === undefined) {
    const guess = Buffer.from(payload).toString('utf8')
    return { source: guess, texts: [whole(guess)], isWritable: false }
  }
  return { source, texts: textsIn(source), isWritable: true }
}

function textsIn(source: string): Text[] {
  if (isJson(source)) return stringValues(source)
  // Also behind a byte order mark, which some skip who read JSON.
  return /^[\s\uFEFF]*[[{]/.test(source) ? [whole(source), ...stringValues(source)] : [whole(source)]
}

function decoded(payload: Uint8Array): string | undefined {
  try {
    return strict.decode(payload)
  } catch {
    return undefined
  }
}

function whole(source: string): Text {
  return { value: source, start: 0, end: source.length, offsets: undefined }
}

function isJson(source: string): boolean {
  try {
    JSON.parse(source)
    return true
  } catch {
    return false
  }
}

function stringValues(source: string): Text[] {
  const texts: Text[] = []
  for (let open = source.indexOf('"'); open >= 0; ) {
    const start = open + 1
    const { end, isEscaped } = closingQuote(source, start)
    if (!isName(source, end + 1) && !isDataUrl(source, start, end)) {
      texts.push(isEscaped ? unescaped(source, start, end) : plain(source, start, end))
    }
    open = source.indexOf('"', end + 1)
  }
  return texts
}

function plain(source: string, start: number, end: number): Text {
  return { value: source.slice(start, end), start, end, offsets: undefined }
}

function closingQuote(source: string, start: number): { readonly end: number; readonly isEscaped: boolean } {
  let isEscaped = false
  let at = start
  for (; at < source.length; at += 1) {
    const code = source.charCodeAt(at)
    if (code === 0x22) break
    if (code === 0x5c) {
      isEscaped = true
      at += 1
    }
  }
  return { end: at, isEscaped }
}

/** Whether a colon follows. */
function isName(source: string, from: number): boolean {
  let at = from
  while (at < source.length && ' \n\r\t'.includes(source.charAt(at))) at += 1
  return source[at] === ':'
}

/** Whether a string is a file in base64, and nothing that anybody could read. */
function isDataUrl(source: string, start: number, end: number): boolean {
  dataUrl.lastIndex = start
  return source.startsWith('data:', start) && dataUrl.test(source) && dataUrl.lastIndex === end
}

/** With backslashes, because some writers of JSON escape the slashes. */
const dataUrl = /data:[^"\s,]{0,90};base64,[A-Za-z0-9+/_=\\-]*/y

const escapes: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', b: '\b', f: '\f' }

function unescaped(source: string, start: number, end: number): Text {
  const offsets = new Uint32Array(end - start + 1)
  const parts: string[] = []
  let length = 0
  for (let at = start; at < end; length += 1) {
    offsets[length] = at
    const char = source.charAt(at)
    const escaped = source.charAt(at + 1)
    if (char !== '\\') {
      parts.push(char)
      at += 1
    } else if (escaped === 'u') {
      parts.push(String.fromCharCode(Number.parseInt(source.slice(at + 2, at + 6), 16)))
      at += 6
    } else {
      parts.push(escapes[escaped] ?? escaped)
      at += 2
    }
  }
  offsets[length] = end
  return { value: parts.join(''), start, end, offsets: offsets.subarray(0, length + 1) }
}

/** The payload with the replacements written in; where they overlap, the one that begins first stands for all. */
export function replaced(source: string, replacements: readonly Replacement[]): Uint8Array {
  const spans = replacements
    .map(({ text, start, end, by }) => ({ start: sourceOffset(text, start), end: sourceOffset(text, end), by }))
    .sort((a, b) => a.start - b.start || b.end - a.end)
  const parts: string[] = []
  let at = 0
  let open: (typeof spans)[number] | undefined
  for (const span of spans) {
    if (open !== undefined && span.start < open.end) {
      open = { ...open, end: Math.max(open.end, span.end) }
      continue
    }
    if (open !== undefined) {
      parts.push(open.by)
      at = open.end
    }
    parts.push(source.slice(at, span.start))
    open = span
  }
  if (open !== undefined) {
    parts.push(open.by)
    at = open.end
  }
  return new TextEncoder().encode(parts.join('') + source.slice(at))
}

function sourceOffset({ start, offsets }: Text, index: number): number {
  return offsets === undefined ? start + index : (offsets[index] ?? start)
}
