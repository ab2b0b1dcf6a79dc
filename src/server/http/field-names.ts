import { type DescField, type DescMessage, fromJson, type JsonValue } from '@bufbuild/protobuf'

/** A field by its name in the proto or in JSON. */
export function fieldNamed(message: DescMessage, name: string): DescField | undefined {
  return message.fields.find((field) => field.name === name || field.jsonName === name)
}

/**
 * Path of the first field at which decoding `json` fails, in names of the proto, such as "service.endpoints[1].url"; empty
 * when no field is at fault. The decoder's own error names at most the last field of it, and often only its type. Of a path
 * with more than 8 fields, which only a message within itself can have, the beginning is told.
 */
export function faultyField(message: DescMessage, json: JsonValue, fieldsLeft = 8): string {
  if (typeof json !== 'object' || json === null || Array.isArray(json) || fieldsLeft === 0) return ''
  for (const [key, value] of Object.entries(json)) {
    if (decodes(message, { [key]: value })) continue
    const field = fieldNamed(message, key)
    return field === undefined ? key : `${field.name}${faultWithin(field, value, fieldsLeft - 1)}`
  }
  return ''
}

function faultWithin(field: DescField, value: JsonValue, fieldsLeft: number): string {
  if (field.fieldKind === 'message') return after(faultyField(field.message, value, fieldsLeft))
  if (field.fieldKind === 'list' && field.listKind === 'message' && Array.isArray(value)) {
    for (const [index, each] of value.entries()) {
      if (!decodes(field.message, each)) return `[${index}]${after(faultyField(field.message, each, fieldsLeft))}`
    }
  }
  return ''
}

function after(path: string): string {
  return path === '' ? '' : `.${path}`
}

function decodes(message: DescMessage, json: JsonValue): boolean {
  try {
    fromJson(message, json)
    return true
  } catch {
    return false
  }
}
