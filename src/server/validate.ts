import type { DescMessage } from '@bufbuild/protobuf'
import { compileFieldRules } from '../field-rules.ts'
import type { Middleware } from './middleware.ts'
import { compilePlainCheck, type PlainCheck } from './plain-check.ts'

/** Checks request messages against the rules in their protos, and refuses with every broken rule at once. */
export function validateMessages(schemas: ReadonlySet<DescMessage>): Middleware {
  const rules = compileFieldRules(schemas)
  const plain = new Map<DescMessage, PlainCheck | undefined>()
  for (const schema of schemas) plain.set(schema, compilePlainCheck(schema))
  return {
    name: 'validate',
    why: 'last: only callers who may make the call at all are told how to make it well',
    phase: 'message',
    enter({ rpc, request }) {
      if (request === undefined || rpc.method === undefined) return
      const { input } = rpc.method
      if (plain.get(input)?.(request) !== true) rules.check(input, request)
    },
  }
}
