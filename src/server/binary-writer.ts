/**
 * Messages in binary, as protobuf-es writes them, byte by byte, and several times as fast: it begins each message with a little
 * memory, takes twice as much whenever that is full, and views of it for numbers. Here the bytes are put together in memory that
 * is there already, by a plan that is made once a type, and copied out of it once; of what an implementation answers no message
 * is made. What the plan has no place for, or a value is
 * not as its field says, the library writes, or refuses in its own words.
 */
import {
  create,
  type DescField,
  type DescMessage,
  type Message,
  type MessageInitShape,
  ScalarType,
} from '@bufbuild/protobuf'
import { FeatureSet_FieldPresence as Presence } from '@bufbuild/protobuf/wkt'
import type { Serialization } from '@connectrpc/connect/protocol'
import { isObject } from '../is-object.ts'

/** Where messages are put together, one at a time; one that has no room here is left to the library. */
const room = Buffer.allocUnsafeSlow(65_536)
let end = 0

/** The bytes of a message, or of what one can be made from. */
export type WriteAnswer = (message: MessageInitShape<DescMessage>) => Uint8Array

/** Writes as `library` does a message that was made, without making one. Those of more than `maxBytes` are left to it. */
export function writeBinary(desc: DescMessage, library: Serialization<Message>, maxBytes: number): WriteAnswer {
  const put = messageWriter(desc)
  return (message) => {
    end = 0
    if (put === undefined || !put(message, true) || end > maxBytes) return library.serialize(create(desc, message))
    const bytes = Buffer.allocUnsafe(end)
    room.copy(bytes, 0, 0, end)
    return bytes
  }
}

/**
 * Puts a value at the end; false for one that is left to the library. In `isInit`, of which a message would be made, what is
 * undefined is not set.
 */
type Put = (value: unknown, isInit: boolean) => boolean

interface Kind {
  /** https://protobuf.dev/programming-guides/encoding/#structure */
  readonly wireType: 0 | 1 | 2
  /** Whether a value is not written where its field is always there. */
  readonly isEmpty: (value: unknown) => boolean
  readonly put: Put
}

/** Undefined for messages that have fields of other kinds. */
function messageWriter(desc: DescMessage, within: readonly DescMessage[] = []): Put | undefined {
  // Some of google.protobuf are no messages in JavaScript; one that holds itself would never be planned to its end.
  if (desc.typeName.startsWith('google.protobuf.') || within.includes(desc)) return undefined
  const fields: Put[] = []
  for (const field of desc.fields.toSorted((a, b) => a.number - b.number)) {
    const writer = fieldWriter(field, [...within, desc])
    if (writer === undefined) return undefined
    fields.push(writer)
  }
  return (message, isInit) => {
    if (!isObject(message) || message.$unknown !== undefined) return false
    const isMade = message.$typeName !== undefined
    // A message that was made holds only messages that were.
    if (isMade ? message.$typeName !== desc.typeName : !isInit) return false
    for (const put of fields) if (!put(message, !isMade)) return false
    return true
  }
}

/** Takes the message that has the field. */
function fieldWriter(field: DescField, within: readonly DescMessage[]): Put | undefined {
  const kind = kindOf(field, within)
  if (kind === undefined || ('delimitedEncoding' in field && field.delimitedEncoding)) return undefined
  const { localName: name, oneof } = field
  const tag = (field.number << 3) | kind.wireType
  const put: Put = (value, isInit) => putVarint(tag) && kind.put(value, isInit)
  if (field.fieldKind === 'list') {
    return (message, isInit) => {
      const list = isObject(message) ? message[name] : undefined
      if (!Array.isArray(list)) return list === undefined && isInit
      for (let at = 0; at < list.length; at++) if (!put(list[at], isInit)) return false
      return true
    }
  }
  if (oneof !== undefined) {
    return (message, isInit) => {
      const chosen = isObject(message) ? message[oneof.localName] : undefined
      if (!isObject(chosen)) return chosen === undefined && isInit
      return chosen.case !== name || put(chosen.value, isInit)
    }
  }
  if (field.fieldKind !== 'message' && field.presence !== Presence.IMPLICIT) return undefined
  return (message, isInit) => {
    const value = isObject(message) ? message[name] : undefined
    return (value === undefined && isInit) || kind.isEmpty(value) || put(value, isInit)
  }
}

function kindOf(field: DescField, within: readonly DescMessage[]): Kind | undefined {
  switch (field.fieldKind) {
    case 'message':
      return nested(field.message, within)
    case 'enum':
      return { ...enumeration, isEmpty: (value) => value === field.enum.values[0]?.number }
    case 'scalar':
      return scalars[field.scalar]
    case 'list':
      // Numbers of a list are packed.
      return field.listKind === 'message' ? nested(field.message, within) : undefined
    case 'map':
      return undefined
  }
}

function nested(desc: DescMessage, within: readonly DescMessage[]): Kind | undefined {
  const put = messageWriter(desc, within)
  if (put === undefined) return undefined
  return {
    wireType: 2,
    isEmpty: (value) => value === undefined,
    put(message, isInit) {
      // Most are shorter than 128 bytes: their length is one.
      end += 1
      const start = end
      if (!put(message, isInit)) return false
      const length = end - start
      const further = varintLength(length) - 1
      if (end + further > room.length) return false
      if (further > 0) room.copyWithin(start + further, start, end)
      end = start - 1
      putVarint(length)
      end += length
      return true
    },
  }
}

function putVarint(value: number): boolean {
  if (end + longestVarint > room.length) return false
  let rest = value
  for (; rest > 0x7f_ff_ff_ff; rest = Math.floor(rest / 128)) room[end++] = (rest % 128) | 0x80
  for (; rest > 0x7f; rest >>>= 7) room[end++] = (rest & 0x7f) | 0x80
  room[end++] = rest
  return true
}

const longestVarint = 10

function varintLength(value: number): number {
  let length = 1
  for (let rest = value; rest > 0x7f; rest >>>= 7) length += 1
  return length
}

const text: Kind = {
  wireType: 2,
  isEmpty: (value) => value === '',
  put(value) {
    if (typeof value !== 'string' || end + longestVarint + 3 * value.length > room.length) return false
    if (putAscii(value)) return true
    const length = Buffer.byteLength(value)
    putVarint(length)
    room.write(value, end)
    end += length
    return true
  },
}

/** Ids and names are short and of ASCII: to ask the system for their length and bytes costs more than to copy them here. */
function putAscii(value: string): boolean {
  if (value.length > 0x7f) return false
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at)
    if (code > 0x7f) return false
    room[end + 1 + at] = code
  }
  room[end] = value.length
  end += 1 + value.length
  return true
}

const bytes: Kind = {
  wireType: 2,
  isEmpty: (value) => value instanceof Uint8Array && value.length === 0,
  put(value) {
    if (!(value instanceof Uint8Array) || end + longestVarint + value.length > room.length) return false
    putVarint(value.length)
    room.set(value, end)
    end += value.length
    return true
  },
}

const bool: Kind = {
  wireType: 0,
  isEmpty: (value) => value === false,
  put: (value) => typeof value === 'boolean' && putVarint(value ? 1 : 0),
}

function integer(most: number): Kind {
  return {
    wireType: 0,
    isEmpty: (value) => value === 0,
    put: (value) =>
      typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most && putVarint(value),
  }
}

const enumeration = integer(0x7f_ff_ff_ff)

const long: Kind = {
  wireType: 0,
  isEmpty: (value) => value === 0n,
  put(value) {
    if (typeof value !== 'bigint') return false
    // To compare a number with another one takes a tenth of the time that a bigint takes.
    const number = Number(value)
    return number >= 0 && number <= Number.MAX_SAFE_INTEGER && putVarint(number)
  },
}

const double: Kind = {
  wireType: 1,
  isEmpty: (value) => Object.is(value, 0),
  put(value) {
    if (typeof value !== 'number' || end + 8 > room.length) return false
    end = room.writeDoubleLE(value, end)
    return true
  },
}

const scalars: Readonly<Partial<Record<ScalarType, Kind>>> = {
  [ScalarType.STRING]: text,
  [ScalarType.BYTES]: bytes,
  [ScalarType.BOOL]: bool,
  [ScalarType.INT32]: integer(0x7f_ff_ff_ff),
  [ScalarType.UINT32]: integer(0xff_ff_ff_ff),
  [ScalarType.INT64]: long,
  [ScalarType.UINT64]: long,
  [ScalarType.DOUBLE]: double,
}
