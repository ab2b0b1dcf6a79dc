/**
 * The rules of messages whose fields are plain: texts with a length, maps of such texts, and whatever has no rules. To look for
 * broken rules, protovalidate walks through a message field by field and notes where it is; most messages break none, and for a
 * message of plain fields that is a few comparisons. A message that may break one is left to it, and so are all other types.
 */
import { create, type DescField, type DescMessage, equals, getOption, hasOption, isFieldSet } from '@bufbuild/protobuf'
import {
  type FieldRules,
  FieldRulesSchema,
  field as fieldOption,
  MapRulesSchema,
  message as messageOption,
  StringRulesSchema,
} from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js'
import { isObject } from '../is-object.ts'

/** True for a message that keeps every rule; false where that takes a closer look. */
export type PlainCheck = (message: object) => boolean

/** Undefined for a type with rules that are not plain. */
export function compilePlainCheck(desc: DescMessage): PlainCheck | undefined {
  if (hasOption(desc, messageOption) || desc.oneofs.length > 0) return undefined
  const checks: { readonly name: string; readonly keeps: Keeps }[] = []
  for (const field of desc.fields) {
    const keeps = keepsOf(field)
    if (keeps === undefined) return undefined
    if (keeps !== always) checks.push({ name: field.localName, keeps })
  }
  return (message) => {
    if (!isObject(message)) return false
    for (const { name, keeps } of checks) if (!keeps(message[name])) return false
    return true
  }
}

type Keeps = (value: unknown) => boolean

const always: Keeps = () => true

function keepsOf(field: DescField): Keeps | undefined {
  if (field.fieldKind === 'message' || (field.fieldKind === 'list' && field.listKind === 'message')) return undefined
  if (field.fieldKind === 'map' && field.mapKind === 'message') return undefined
  if (!hasOption(field, fieldOption)) return always
  const rules = getOption(field, fieldOption)
  if (field.fieldKind === 'scalar') return textRules(rules)
  return field.fieldKind === 'map' ? mapRules(rules) : undefined
}

/** Undefined when they say more than how long a text may be. */
function textRules(rules: FieldRules): Keeps | undefined {
  if (rules.type.case !== 'string') return undefined
  const { minLen, maxLen } = rules.type.value
  const hasMin = isFieldSet(rules.type.value, StringRulesSchema.field.minLen)
  const hasMax = isFieldSet(rules.type.value, StringRulesSchema.field.maxLen)
  const all = create(FieldRulesSchema, {
    type: { case: 'string', value: { ...(hasMin && { minLen }), ...(hasMax && { maxLen }) } },
  })
  if (!equals(FieldRulesSchema, rules, all)) return undefined
  const [least, most] = [Number(minLen), hasMax ? Number(maxLen) : Number.POSITIVE_INFINITY]
  // Rules count characters: as many as the text is long, or as few as half of it.
  return (value) => typeof value === 'string' && value.length <= most && value.length >= 2 * least - 1
}

/** Undefined when they say more than how many entries there may be, and how long their names and texts. */
function mapRules(rules: FieldRules): Keeps | undefined {
  if (rules.type.case !== 'map') return undefined
  const { maxPairs, keys, values } = rules.type.value
  const hasMax = isFieldSet(rules.type.value, MapRulesSchema.field.maxPairs)
  const all = create(FieldRulesSchema, {
    type: {
      case: 'map',
      value: { ...(hasMax && { maxPairs }), ...(keys && { keys }), ...(values && { values }) },
    },
  })
  const keepsName = keys === undefined ? always : textRules(keys)
  const keepsText = values === undefined ? always : textRules(values)
  if (keepsName === undefined || keepsText === undefined || !equals(FieldRulesSchema, rules, all)) return undefined
  const most = hasMax ? Number(maxPairs) : Number.POSITIVE_INFINITY
  return (map) => {
    if (!isObject(map)) return false
    let count = 0
    for (const name in map) if (++count > most || !keepsName(name) || !keepsText(map[name])) return false
    return true
  }
}
