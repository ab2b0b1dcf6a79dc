import { create, type DescMessage, type MessageShape } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import { TollgateError } from './errors.ts'
import { plainViolation } from './plain-rules.ts'

/** The rules that stand beside the fields of messages, in their protos. */
export interface FieldRules {
  /**
   * Throws INVALID_ARGUMENT with every rule that the message breaks. `within` is the path of the request field that holds it;
   * default the message is the request.
   */
  check<D extends DescMessage>(schema: D, message: MessageShape<D>, within?: string): void
}

/** Compiles the rules of `schemas` at once: the first use of one costs 40 ms that no caller should pay. */
export function compileFieldRules(schemas: Iterable<DescMessage>): FieldRules {
  const validator = createValidator()
  for (const schema of schemas) {
    const warmed = validator.validate(schema, create(schema))
    if (warmed.kind === 'error') throw warmed.error
  }
  return {
    check(schema, message, within) {
      const result = validator.validate(schema, message)
      if (result.kind === 'valid') return
      if (result.kind === 'error') throw result.error
      const fields = result.violations.map(plainViolation).map((violation) => {
        return within === undefined ? violation : { ...violation, field: `${within}.${violation.field}` }
      })
      const summary = fields.map(({ field, description }) => `${field}: ${description}`).join('; ')
      throw new TollgateError('INVALID_ARGUMENT', summary, { fields })
    },
  }
}
