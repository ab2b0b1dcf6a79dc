import { type DescEnum, type DescField, type DescMessage, type JsonValue, ScalarType } from '@bufbuild/protobuf'
import { isWrapperDesc } from '@bufbuild/protobuf/wkt'
import { TollgateError } from '../../errors.ts'
import { fieldNamed } from './field-names.ts'

/** A JSON object that grows. */
export interface JsonTree {
  [name: string]: JsonValue
}

/** Name and value of every parameter of a URL, decoded, in order. Throws INVALID_ARGUMENT for one that is not encoded. */
export function parametersOf(url: string): [name: string, value: string][] {
  const start = url.indexOf('?')
  if (start < 0) return []
  return url
    .slice(start + 1)
    .split('&')
    .filter((part) => part !== '')
    .map((part) => {
      const equals = part.indexOf('=')
      const name = equals < 0 ? part : part.slice(0, equals)
      return [decoded(name, name), equals < 0 ? '' : decoded(part.slice(equals + 1), name)]
    })
}

/** The fields that a parameter's name means, from the message down. Throws INVALID_ARGUMENT when there is none. */
export function fieldsNamed(message: DescMessage, name: string): [DescField, ...DescField[]] {
  const steps: DescField[] = []
  let at: DescMessage | undefined = message
  for (const part of name.split('.')) {
    const field: DescField | undefined = at && fieldNamed(at, part)
    if (field === undefined) throw wrong(name, 'is no parameter of this path')
    steps.push(field)
    at = field.fieldKind === 'message' && !isTextual(field.message) ? field.message : undefined
  }
  const [first, ...rest] = steps
  if (first === undefined) throw wrong(name, 'is no parameter of this path')
  return [first, ...rest]
}

/**
 * Puts a parameter into the JSON of a request, where the decoder of JSON finds it. Throws INVALID_ARGUMENT for a field that
 * has no form as one text, and for a second value of a field that takes one.
 */
export function putParameter(tree: JsonTree, fields: readonly DescField[], name: string, text: string): void {
  let at = tree
  for (const field of fields.slice(0, -1)) {
    const inner = at[field.jsonName]
    const next: JsonTree = isTree(inner) ? inner : {}
    at[field.jsonName] = next
    at = next
  }
  const field = fields.at(-1)
  if (field === undefined) return
  const value = parameterValue(field, name, text)
  const known = at[field.jsonName]
  if (field.fieldKind === 'list' && Array.isArray(known)) known.push(value)
  else if (field.fieldKind === 'list') at[field.jsonName] = [value]
  else if (known !== undefined) throw wrong(name, 'is given more than once')
  else at[field.jsonName] = value
}

function parameterValue(field: DescField, name: string, text: string): JsonValue {
  if (field.enum !== undefined && field.fieldKind !== 'map') return enumValue(field.enum, name, text)
  if (field.scalar !== undefined && field.fieldKind !== 'map') return scalarValue(field.scalar, name, text)
  if (field.fieldKind === 'map' || field.message === undefined || !isTextual(field.message)) {
    throw wrong(name, 'cannot be given as a parameter: name a field within it')
  }
  const wrapped = isWrapperDesc(field.message) ? field.message.fields[0]?.scalar : undefined
  return wrapped === undefined ? text : scalarValue(wrapped, name, text)
}

function enumValue({ values }: DescEnum, name: string, text: string): JsonValue {
  const value = values.find((each) => each.name === text || String(each.number) === text)
  if (value !== undefined) return value.number
  const known = values.filter(({ number }) => number !== 0).map((each) => each.name)
  throw wrong(name, `must be one of ${known.join(', ')}`)
}

/** Numbers stay text, which the JSON of Protobuf allows: as a number of JavaScript, one of 64 bits would lose digits. */
function scalarValue(type: ScalarType, name: string, text: string): JsonValue {
  switch (type) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return text
    case ScalarType.BOOL:
      if (text !== 'true' && text !== 'false') throw wrong(name, 'must be true or false')
      return text === 'true'
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      if (!/^-?(\d+(\.\d+)?(e[+-]?\d+)?|Infinity)$|^NaN$/i.test(text)) throw wrong(name, 'must be a number')
      return text
    default:
      if (!/^-?\d+$/.test(text)) throw wrong(name, 'must be a whole number')
      return text
  }
}

/** Messages that JSON, and so a parameter, has as one text. */
function isTextual(message: DescMessage): boolean {
  return textualTypes.has(message.typeName) || isWrapperDesc(message)
}

const textualTypes: ReadonlySet<string> = new Set([
  'google.protobuf.Timestamp',
  'google.protobuf.Duration',
  'google.protobuf.FieldMask',
])

function isTree(value: JsonValue | undefined): value is JsonTree {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function decoded(text: string, name: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    throw wrong(name, 'is not percent-encoded UTF-8')
  }
}

/** INVALID_ARGUMENT that names the field at fault. */
export function wrong(field: string, description: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `${field} ${description}`, { fields: [{ field, description }] })
}
