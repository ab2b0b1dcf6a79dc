import type { DescMessage } from '@bufbuild/protobuf'
import { compileFieldRules } from '../field-rules.ts'
import type { Middleware } from './middleware.ts'

/** Checks request messages against the rules in their protos, and refuses with every broken rule at once. */
export function validateMessages(schemas: Iterable<DescMessage>): Middleware {
  const rules = compileFieldRules(schemas)
  return {
    name: 'validate',
    why: 'last: only callers who may make the call at all are told how to make it well',
    phase: 'message',
    enter({ rpc, request }) {
      if (request !== undefined && rpc.method !== undefined) rules.check(rpc.method.input, request)
    },
  }
}
