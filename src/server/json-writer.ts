/**
 * Messages as JSON, as protobuf-es writes them, byte by byte, and four times as fast: it makes an object of each message for
 * JSON.stringify, and base64 of a payload character by character. Here the text is put together by a plan that is made once a
 * type. What the plan has no place for, or a value is not as its field says, the library writes, or refuses in its own words.
 */
import { type DescField, type DescMessage, type Message, ScalarType } from '@bufbuild/protobuf'
import { FeatureSet_FieldPresence as Presence } from '@bufbuild/protobuf/wkt'
import type { Serialization } from '@connectrpc/connect/protocol'
import { isObject } from '../is-object.ts'

/** Writes as `library` does. Texts of more than `maxBytes` are left to it. */
export function writeJson(
  desc: DescMessage,
  library: Serialization<Message>,
  maxBytes: number,
): Serialization<Message> {
  const write = messageWriter(desc)
  if (write === undefined) return library
  return {
    parse: library.parse,
    serialize(message) {
      const text = write(message)
      if (text === undefined) return library.serialize(message)
      const bytes = Buffer.from(text)
      return bytes.length > maxBytes ? library.serialize(message) : bytes
    },
  }
}

/** The JSON of a value; undefined for one that is left to the library. */
type Write = (value: unknown) => string | undefined

interface FieldWriter {
  readonly name: string
  /** Its name in JSON, with quotes and colon. */
  readonly key: string
  /** Whether a value is not written at all. */
  readonly isEmpty: (value: unknown) => boolean
  readonly write: Write
}

/** Undefined for messages that have fields of other kinds. */
function messageWriter(desc: DescMessage, within: readonly DescMessage[] = []): Write | undefined {
  // Those of google.protobuf have a JSON of their own; one that holds itself would never be planned to its end.
  if (desc.typeName.startsWith('google.protobuf.') || within.includes(desc)) return undefined
  const fields: FieldWriter[] = []
  for (const field of desc.fields.toSorted((a, b) => a.number - b.number)) {
    const writer = fieldWriter(field, [...within, desc])
    if (writer === undefined) return undefined
    fields.push(writer)
  }
  return (message) => {
    if (!isObject(message) || message.$typeName !== desc.typeName) return undefined
    let text = ''
    for (const { name, key, isEmpty, write } of fields) {
      const value = message[name]
      if (isEmpty(value)) continue
      const json = write(value)
      if (json === undefined) return undefined
      text += text === '' ? key + json : `,${key}${json}`
    }
    return `{${text}}`
  }
}

function fieldWriter(field: DescField, within: readonly DescMessage[]): FieldWriter | undefined {
  const { localName: name, jsonName, oneof } = field
  if (oneof !== undefined || jsonName === '__proto__') return undefined
  const kind = kindOf(field, within)
  return kind && { name, key: `${JSON.stringify(jsonName)}:`, ...kind }
}

function kindOf(field: DescField, within: readonly DescMessage[]): Pick<FieldWriter, 'isEmpty' | 'write'> | undefined {
  switch (field.fieldKind) {
    case 'message': {
      const write = messageWriter(field.message, within)
      return write && { isEmpty: (value) => value === undefined, write }
    }
    case 'enum':
      if (field.presence !== Presence.IMPLICIT) return undefined
      return { isEmpty: (value) => value === field.enum.values[0]?.number, write: enumWriter(field.enum) }
    case 'scalar':
      return field.presence === Presence.IMPLICIT ? scalars[field.scalar] : undefined
    case 'list': {
      const write = itemWriter(field, within)
      return write && { isEmpty: (value) => Array.isArray(value) && value.length === 0, write: listWriter(write) }
    }
    case 'map':
      return undefined
  }
}

function itemWriter(field: DescField & { fieldKind: 'list' }, within: readonly DescMessage[]): Write | undefined {
  if (field.listKind === 'message') return messageWriter(field.message, within)
  return field.listKind === 'enum' ? enumWriter(field.enum) : scalars[field.scalar]?.write
}

function listWriter(write: Write): Write {
  return (list) => {
    if (!Array.isArray(list)) return undefined
    let text = ''
    for (let at = 0; at < list.length; at++) {
      const json = write(list[at])
      if (json === undefined) return undefined
      text += at === 0 ? json : `,${json}`
    }
    return `[${text}]`
  }
}

/** By its name, or by its number where the number has none. */
function enumWriter({ typeName, values }: Extract<DescField, { fieldKind: 'enum' }>['enum']): Write {
  const names = new Map(values.map(({ number, jsonName }) => [number, JSON.stringify(jsonName)]))
  if (typeName === 'google.protobuf.NullValue') return () => undefined
  return (value) =>
    Number.isInteger(value) && typeof value === 'number' ? (names.get(value) ?? `${value}`) : undefined
}

const text: Pick<FieldWriter, 'isEmpty' | 'write'> = {
  isEmpty: (value) => value === '',
  write: (value) => (typeof value === 'string' ? JSON.stringify(value) : undefined),
}

const bytes: Pick<FieldWriter, 'isEmpty' | 'write'> = {
  isEmpty: (value) => value instanceof Uint8Array && value.length === 0,
  write: (value) =>
    value instanceof Uint8Array
      ? `"${Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64')}"`
      : undefined,
}

const bool: Pick<FieldWriter, 'isEmpty' | 'write'> = {
  isEmpty: (value) => value === false,
  write: (value) => (value === true ? 'true' : value === false ? 'false' : undefined),
}

const integer: Pick<FieldWriter, 'isEmpty' | 'write'> = {
  isEmpty: (value) => value === 0,
  write: (value) => (Number.isInteger(value) ? JSON.stringify(value) : undefined),
}

/** As a string: its numbers have more digits than those of JavaScript. */
const long: Pick<FieldWriter, 'isEmpty' | 'write'> = {
  isEmpty: (value) => value === 0n,
  write: (value) => (typeof value === 'bigint' ? `"${value}"` : undefined),
}

const float: Pick<FieldWriter, 'isEmpty' | 'write'> = {
  isEmpty: (value) => Object.is(value, 0),
  write: (value) => (Number.isFinite(value) ? JSON.stringify(value) : undefined),
}

const scalars: Readonly<Partial<Record<ScalarType, Pick<FieldWriter, 'isEmpty' | 'write'>>>> = {
  [ScalarType.STRING]: text,
  [ScalarType.BYTES]: bytes,
  [ScalarType.BOOL]: bool,
  [ScalarType.INT32]: integer,
  [ScalarType.SINT32]: integer,
  [ScalarType.SFIXED32]: integer,
  [ScalarType.UINT32]: integer,
  [ScalarType.FIXED32]: integer,
  [ScalarType.INT64]: long,
  [ScalarType.SINT64]: long,
  [ScalarType.SFIXED64]: long,
  [ScalarType.UINT64]: long,
  [ScalarType.FIXED64]: long,
  [ScalarType.DOUBLE]: float,
  [ScalarType.FLOAT]: float,
}
