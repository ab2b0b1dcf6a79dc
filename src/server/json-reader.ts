/**
 * Messages from JSON, as protobuf-es reads them: most of its time goes into base64 and a search for names that come twice, both
 * character by character. Here only the plain form is read, a flat object of strings; whatever else it is, good or bad, the
 * library reads, or refuses in its own words.
 */
import { create, type DescMessage, type Message, ScalarType } from '@bufbuild/protobuf'
import type { Serialization } from '@connectrpc/connect/protocol'
import { parseObjectText } from '../providers/json.ts'

/** Reads as `library` does. */
export function readJson(desc: DescMessage, library: Serialization<Message>): Serialization<Message> {
  const fields = new Map(
    desc.fields.flatMap((field) => {
      if (field.fieldKind !== 'scalar' || field.oneof !== undefined) return []
      const { localName, scalar } = field
      if (scalar !== ScalarType.STRING && scalar !== ScalarType.BYTES) return []
      const known = { localName, isBytes: scalar === ScalarType.BYTES }
      return [
        [field.name, known],
        [field.jsonName, known],
      ] as const
    }),
  )

  function messageIn(text: string): Message | undefined {
    // With an escape a name can be written in two ways, and a quote within a string.
    if (text.includes('\\')) return undefined
    const object = parseObjectText(text)
    if (object === undefined) return undefined
    const found: Record<string, unknown> = {}
    let members = 0
    for (const name in object) {
      const field = fields.get(name)
      const value = object[name]
      if (field === undefined || typeof value !== 'string' || field.localName in found) return undefined
      const read = field.isBytes ? bytesOf(value) : value
      if (read === undefined) return undefined
      found[field.localName] = read
      members++
    }
    // Each member has two quotes around its name and two around its value; a name that came twice would have left more.
    return quotesIn(text) === 4 * members ? create(desc, found) : undefined
  }

  return {
    serialize: library.serialize,
    parse: (bytes) => messageIn(decoder.decode(bytes)) ?? library.parse(bytes),
  }
}

/** As the library decodes. */
const decoder = new TextDecoder()

/** Undefined for what is not the one base64 of some bytes: other spellings of them are the library's. */
function bytesOf(base64: string): Uint8Array | undefined {
  const bytes = Buffer.from(base64, 'base64')
  return bytes.toString('base64') === base64 ? bytes : undefined
}

function quotesIn(text: string): number {
  let count = 0
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at + 1)) count++
  return count
}
