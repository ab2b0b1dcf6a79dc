/**
 * The request message of a call over plain HTTP: its body by the JSON mapping of Protobuf, then path and query into it. No
 * field can be given twice, and nothing is dropped: what names no field is refused.
 */
import {
  create,
  type DescField,
  type DescMessage,
  fromJsonString,
  getOption,
  type JsonValue,
  type Message,
  mergeFromJson,
  ScalarType,
} from '@bufbuild/protobuf'
import { reflect } from '@bufbuild/protobuf/reflect'
import { HttpBodySchema } from '../../../gen/google/api/httpbody_pb.ts'
import { sensitive } from '../../../gen/marketplace/v1/options_pb.ts'
import { plainReason } from '../decoder-errors.ts'
import { type Binding, rawBodyType } from './binding.ts'
import { faultyField, fieldNamed } from './field-names.ts'
import { variableText } from './path-template.ts'
import { fieldsNamed, type JsonTree, parametersOf, putParameter, wrong } from './query.ts'

/** What a request says. */
export interface RequestParts {
  /** Of the path, percent-encoded. */
  readonly segments: readonly string[]
  /** With its query. */
  readonly url: string
  readonly contentType: string
  readonly body: Uint8Array
}

/** Throws INVALID_ARGUMENT, naming the field at fault. */
export function requestMessage(binding: Binding, { segments, url, contentType, body }: RequestParts): Message {
  const { method, variables } = binding
  const message = messageOfBody(binding, body, contentType)
  const tree: JsonTree = {}
  for (const variable of variables) {
    const value = variableText(variable, segments)
    if (value === undefined) throw wrong(variable.field, 'is not percent-encoded UTF-8')
    const given = textAt(message, variable.fields)
    if (given !== undefined && given !== value) throw wrong(variable.field, 'differs from the one in the path')
    putParameter(tree, variable.fields, variable.field, value)
  }
  for (const [name, value] of parametersOf(url)) {
    if (binding.body === 'whole') throw wrong(name, 'belongs into the body: this path takes no parameters')
    const fields = fieldsNamed(method.input, name)
    if (fields[0] === binding.body) throw wrong(name, 'belongs into the body')
    if (variables.some((variable) => sameFields(variable.fields, fields))) throw wrong(name, 'is given by the path')
    putParameter(tree, fields, name, value)
  }
  return decoding(method.input, tree, () => mergeFromJson(method.input, message, tree))
}

function messageOfBody({ method, body: target }: Binding, body: Uint8Array, contentType: string): Message {
  const { input } = method
  const message = create(input)
  if (target === undefined) {
    if (body.length > 0) throw wrong('body', 'must be empty: this path takes none')
    return message
  }
  if (target !== 'whole' && target.fieldKind === 'message' && target.message.typeName === rawBodyType) {
    reflect(input, message).set(target, reflect(HttpBodySchema, create(HttpBodySchema, { contentType, data: body })))
    return message
  }
  if (body.length === 0) return message
  const text = textOf(body)
  const json = parsed(text)
  if (target !== 'whole') {
    return decoding(input, { [target.jsonName]: json }, () => fromJsonString(input, `{"${target.jsonName}":${text}}`))
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw wrong('body', 'must be a JSON object')
  return decoding(input, json, () => fromJsonString(input, text))
}

function textOf(body: Uint8Array): string {
  try {
    return decoder.decode(body)
  } catch {
    throw wrong('body', 'is no UTF-8')
  }
}

/** The parser's own words quote the body, which may be a prompt. */
function parsed(text: string): JsonValue {
  try {
    return JSON.parse(text)
  } catch (error) {
    const [, position] = /at position (\d+)/.exec(String(error)) ?? []
    throw wrong('body', position === undefined ? 'is no JSON' : `is no JSON from character ${position} on`)
  }
}

function decoding(message: DescMessage, json: JsonValue, decode: () => Message): Message {
  try {
    return decode()
  } catch (error) {
    const { field: last, description } = plainReason(error instanceof Error ? error.message : String(error))
    const path = faultyField(message, json)
    const top = fieldNamed(message, path.split(/[.[]/, 1)[0] ?? '')
    if (top !== undefined && getOption(top, sensitive)) throw wrong(top.name, `must be ${kindOf(top)}`)
    // A name that is given twice may be one within a prompt: it is told where there can be none.
    const isTellable =
      fieldNamed(message, last) !== undefined || !message.fields.some((each) => getOption(each, sensitive))
    const field = path || (isTellable && last) || 'body'
    throw wrong(field, description.replace(/^the JSON cannot be read: /, ''))
  }
}

/** What a field takes, without a word of what it was given. */
function kindOf(field: DescField): string {
  if (field.fieldKind === 'message' && field.message.typeName === 'google.protobuf.Struct') return 'a JSON object'
  if (field.fieldKind === 'scalar' && field.scalar === ScalarType.BYTES) return 'a text in base64'
  return 'of its type'
}

/** Of a field that the body gave; undefined when it gave none. */
function textAt(message: Message, fields: readonly DescField[]): string | undefined {
  let value: unknown = message
  for (const field of fields) {
    value = typeof value === 'object' && value !== null ? Reflect.get(value, field.localName) : undefined
  }
  return value === undefined || value === '' || value === 0 || value === 0n || value === false
    ? undefined
    : String(value)
}

function sameFields(one: readonly DescField[], other: readonly DescField[]): boolean {
  return one.length === other.length && one.every((field, index) => field === other[index])
}

const decoder = new TextDecoder('utf-8', { fatal: true })
