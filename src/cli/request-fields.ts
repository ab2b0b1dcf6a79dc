/**
 * From the fields of a request message to flags, and back: what is read becomes Protobuf JSON, which the message is then
 * made from, so that the rules of that form (enums by name, times as RFC 3339, durations as "3s") are the flags' rules.
 */
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  ScalarType,
} from '@bufbuild/protobuf'
import { isObject } from '../is-object.ts'
import { shortNames } from './enum-names.ts'

/** A flag that a request has. */
export interface RequestFlag {
  /** Without dashes, such as "granted-services" or "overrides.request-burst". */
  readonly name: string
  /** JSON names from the request down to the field. */
  readonly path: readonly string[]
  /** Proto names from the request down to the field, joined by dots. */
  readonly protoPath: string
  readonly kind: 'boolean' | 'one' | 'many' | 'map'
  /** What is expected, for the help: a word such as "value" or "30s". */
  readonly expects: string
  /** All that may be given; empty: anything. */
  readonly choices: readonly string[]
  /** Text of the command line as JSON; throws an Error that says what is expected. */
  parse(text: string): JsonValue
}

/** Flags of a request; those of `resource` stand for its fields without its name before them. */
export function flagsOf(request: DescMessage, resource: string | undefined): RequestFlag[] {
  return request.fields.flatMap((field) => {
    const isResource = field.name === resource && field.fieldKind === 'message'
    return isResource ? flagsBelow(field.message, { fields: [field], nameless: 1 }) : flagOf(field, root)
  })
}

/** What the command fills in, or the gate. */
const filledIn: ReadonlySet<string> = new Set(['page_token', 'page_size', 'update_mask', 'create_time', 'update_time'])

/** The fields above a field; the first `nameless` of them are not in the names of flags. */
interface Above {
  readonly fields: readonly DescField[]
  readonly nameless: number
}

const root: Above = { fields: [], nameless: 0 }

/** Deeper than this a request comes from a file. */
const deepest = 4

function flagsBelow(message: DescMessage, above: Above): RequestFlag[] {
  return above.fields.length === deepest ? [] : message.fields.flatMap((field) => flagOf(field, above))
}

/** A request as JSON: what the file says, and over it what flags and positional arguments say. */
export function requestJson(file: JsonObject, given: Iterable<readonly [RequestFlag, JsonValue]>): JsonObject {
  const request = structuredClone(file)
  for (const [{ path }, value] of given) set(request, path, value)
  return request
}

function flagOf(field: DescField, { fields, nameless }: Above): RequestFlag[] {
  if (filledIn.has(field.name)) return []
  const below = { fields: [...fields, field], nameless }
  const names = below.fields.map((each) => each.name)
  const flag = (
    kind: RequestFlag['kind'],
    expects: string,
    parse: RequestFlag['parse'],
    choices: readonly string[] = [],
  ): RequestFlag[] => [
    {
      name: names.slice(nameless).join('.').replaceAll('_', '-'),
      path: below.fields.map((each) => each.jsonName),
      protoPath: names.join('.'),
      kind,
      expects,
      choices,
      parse,
    },
  ]
  switch (field.fieldKind) {
    case 'scalar':
      if (field.scalar === ScalarType.BYTES) return []
      if (field.scalar === ScalarType.BOOL) return flag('boolean', '', asBoolean)
      return flag('one', 'value', asScalar(field.scalar))
    case 'enum':
      return flag('one', 'choice', asEnum(field.enum), [...shortNames(field.enum).keys()])
    case 'message': {
      const form = wellKnown.get(field.message.typeName)
      return form === undefined ? flagsBelow(field.message, below) : flag('one', form, (text) => text)
    }
    case 'map':
      return field.mapKind === 'scalar' ? flag('map', 'key=value', (text) => text) : []
    case 'list':
      if (field.listKind === 'enum')
        return flag('many', 'choice', asEnum(field.enum), [...shortNames(field.enum).keys()])
      return field.listKind === 'scalar' ? flag('many', 'value', asScalar(field.scalar)) : []
  }
}

const wellKnown: ReadonlyMap<string, string> = new Map([
  ['google.protobuf.Timestamp', '2026-12-31T00:00:00Z'],
  ['google.protobuf.Duration', '30s'],
])

const asBoolean = (text: string): boolean => text !== 'false'

function asScalar(scalar: ScalarType): (text: string) => JsonValue {
  if (scalar === ScalarType.STRING) return (text) => text
  return (text) => {
    if (/^-?\d+(\.\d+)?$/.test(text)) return text
    throw new Error('expects a number')
  }
}

function asEnum(choices: DescEnum): (text: string) => JsonValue {
  const names = shortNames(choices)
  return (text) => {
    const plain = text.toLowerCase().replaceAll('_', '-')
    const found = names.get(plain) ?? [...names.values()].find((name) => name === text)
    if (found !== undefined) return found
    throw new Error(`expects one of ${[...names.keys()].join(', ')}`)
  }
}

function set(target: JsonObject, path: readonly string[], value: JsonValue): void {
  const [name, ...rest] = path
  if (name === undefined) return
  if (rest.length === 0) {
    target[name] = value
    return
  }
  const next = target[name]
  const inner: JsonObject = isJsonObject(next) ? next : {}
  target[name] = inner
  set(inner, rest, value)
}

function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return isObject(value)
}
