/**
 * Updates by field mask (https://google.aip.dev/134, https://google.aip.dev/161). The mask names the fields of a resource that
 * a request changes: by path, through singular messages too ("owner.email"); or all of them ("*"); or, left out, those that
 * the request states. A field that the mask names and the request does not state is cleared.
 *
 * Fields that the server alone writes are passed over, so that a resource can be sent back as it was read. A field that no
 * update changes may be sent with the value that it has; with another one, the update is refused.
 */
import { clone, create, type DescField, type DescMessage, equals, type MessageShape } from '@bufbuild/protobuf'
import { isReflectMessage, type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect'
import type { FieldMask } from '@bufbuild/protobuf/wkt'
import { type FieldViolation, TollgateError } from './errors.ts'

/** What an update of a resource leaves as it is; names of fields as in the proto. */
export interface MaskRules {
  /** Fields that an update may not change, with what is said of one: "is never changed", "is changed by RetireService". */
  readonly immutable: Readonly<Record<string, string>>
  /** Written by the server. */
  readonly outputOnly: readonly string[]
}

export interface Update<D extends DescMessage> {
  readonly current: MessageShape<D>
  readonly wanted: MessageShape<D>
  readonly mask: FieldMask | undefined
  /** Name of the request field that holds `wanted`, for what is refused. */
  readonly field: string
}

/**
 * The resource as an update wants it; neither message given is changed. Throws INVALID_ARGUMENT with every path that names no
 * field, and every field that would change and may not. What comes out still has to pass the rules of its fields.
 */
export function applyMask<D extends DescMessage>(schema: D, rules: MaskRules, update: Update<D>): MessageShape<D> {
  const { current, mask, field } = update
  const updated = clone(schema, current)
  const from = reflect(schema, update.wanted)
  const to = reflect(schema, updated)
  const refused: FieldViolation[] = []
  const isWhole = mask?.paths.includes('*') === true
  if (isWhole && mask.paths.length > 1) refused.push(violation('update_mask', '"*" stands alone', 'path'))
  const stated = (name: string): boolean => {
    const known = schema.fields.find((candidate) => candidate.name === name)
    return known !== undefined && from.isSet(known)
  }
  const isNamed = mask !== undefined && mask.paths.length > 0 && !isWhole
  const all = schema.fields.map(({ name }) => name)
  for (const path of isNamed ? mask.paths : isWhole ? all : all.filter(stated)) {
    const [head = ''] = path.split('.', 1)
    if (rules.outputOnly.includes(head)) continue
    const steps = fieldsAt(schema, path)
    if (steps === undefined) {
      refused.push(violation('update_mask', `"${path}" is no field of ${schema.name}`, 'path'))
    } else if (!Object.hasOwn(rules.immutable, head)) {
      copyAt(from, to, steps)
    } else if ((isNamed || stated(head)) && !sameAt(schema, steps, from, to)) {
      refused.push(violation(`${field}.${path}`, rules.immutable[head] ?? '', 'immutable'))
    }
  }
  if (refused.length > 0) {
    const summary = refused.map(({ field: name, description }) => `${name}: ${description}`).join('; ')
    throw new TollgateError('INVALID_ARGUMENT', summary, { fields: refused })
  }
  return updated
}

/** The fields that a path goes through; undefined when there is no such path. */
function fieldsAt(schema: DescMessage, path: string): readonly DescField[] | undefined {
  const steps: DescField[] = []
  let message: DescMessage | undefined = schema
  for (const name of path.split('.')) {
    const field: DescField | undefined = message?.fields.find((candidate) => candidate.name === name)
    if (field === undefined) return undefined
    steps.push(field)
    message = field.fieldKind === 'message' ? field.message : undefined
  }
  return steps
}

function copyAt(from: ReflectMessage, to: ReflectMessage, [step, ...deeper]: readonly DescField[]): void {
  if (step === undefined) return
  if (deeper.length === 0) {
    if (from.isSet(step)) to.set(step, from.get(step))
    else to.clear(step)
    return
  }
  // Nothing is stated within a message that is not there: what the path names is cleared, and no message made for it.
  if (!from.isSet(step) && !to.isSet(step)) return
  const inner: unknown = to.get(step)
  const wanted: unknown = from.get(step)
  if (!isReflectMessage(inner) || !isReflectMessage(wanted)) return
  copyAt(wanted, inner, deeper)
  to.set(step, inner)
}

function sameAt(schema: DescMessage, steps: readonly DescField[], one: ReflectMessage, other: ReflectMessage): boolean {
  const parts = [one, other].map((message) => {
    const part = create(schema)
    copyAt(message, reflect(schema, part), steps)
    return part
  })
  const [left, right] = parts
  return left !== undefined && right !== undefined && equals(schema, left, right)
}

function violation(field: string, description: string, rule: string): FieldViolation {
  return { field, description, rule }
}
