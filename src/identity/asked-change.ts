import { type DescMessage, equals, type MessageShape } from '@bufbuild/protobuf'
import { applyMask, type MaskRules, type Update } from '../field-mask.ts'
import type { FieldRules } from '../field-rules.ts'

/** What the updates of one kind of resource keep to. */
export interface UpdateRules<D extends DescMessage> {
  readonly schema: D
  readonly mask: MaskRules
  readonly fields: FieldRules
}

/**
 * The resource as an update wants it, within the rules of its fields; undefined when that is what it is already. Throws what
 * {@link applyMask} and {@link FieldRules.check} throw.
 */
export function askedChange<D extends DescMessage>(
  rules: UpdateRules<D>,
  update: Update<D>,
): MessageShape<D> | undefined {
  const wanted = applyMask(rules.schema, rules.mask, update)
  rules.fields.check(rules.schema, wanted, update.field)
  return equals(rules.schema, update.current, wanted) ? undefined : wanted
}
