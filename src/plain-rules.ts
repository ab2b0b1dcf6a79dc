import type { DescEnum } from '@bufbuild/protobuf'
import { pathToString } from '@bufbuild/protobuf/reflect'
import type { Violation } from '@bufbuild/protovalidate'
import type { FieldViolation } from './errors.ts'

/**
 * A broken rule in words that say what would be right, to people who know the field and nothing of Protobuf. Rules with a
 * message of their own keep it; what protovalidate says of the others is rephrased here.
 */
export function plainViolation({ field, message, ruleId, forKey }: Violation): FieldViolation {
  const values = ruleId.startsWith('enum.') ? valuesOf(field) : undefined
  const description = values === undefined ? rephrase(message) : `must be one of ${values}`
  return { field: pathToString(field), description: forKey ? `the name ${description}` : description, rule: ruleId }
}

/** Names of the values that mean something: the first one of each enum means that none was stated. */
function valuesOf(path: Violation['field']): string | undefined {
  const last = path.findLast((part) => part.kind === 'field')
  const desc: DescEnum | undefined = last?.kind === 'field' ? last.enum : undefined
  return desc?.values
    .filter(({ number }) => number !== 0)
    .map(({ name }) => name)
    .join(', ')
}

function rephrase(message: string): string {
  for (const [theirs, ours] of phrases) {
    if (theirs.test(message)) return message.replace(theirs, ours)
  }
  return message
}

/** The texts of protovalidate that name its own notions, or could be shorter; one that it words anew is answered as it is. */
const phrases: readonly (readonly [theirs: RegExp, ours: string])[] = [
  [/^value is required$/, 'must be given'],
  [/^must be at least 1 characters$/, 'must not be empty'],
  [/^must be (at (?:least|most) \d+ (?:characters|bytes))$/, 'must have $1'],
  [/^map must be (at (?:least|most) \d+ entries)$/, 'must have $1'],
  [/^must contain at least 1 item\(s\)$/, 'must not be empty'],
  [/^must contain at least (\d+) item\(s\)$/, 'must have at least $1 entries'],
  [/^must contain no more than (\d+) item\(s\)$/, 'must have at most $1 entries'],
  [/^repeated value must contain unique items$/, 'must not have the same entry twice'],
  [
    /^must be a valid UUID$|^value is empty, which is not a valid UUID$/,
    'must be a UUID, such as 0193d6a0-0000-7000-8000-000000000000',
  ],
  [/^must be greater than or equal to (\S+) and less than or equal to (\S+)$/, 'must be $1 to $2'],
  [/^must be greater than (\S+s) and less than or equal to (\S+s)$/, 'must be longer than $1 and at most $2'],
  [/^must be less than (\d{4}-\S+)$/, 'must be before $1'],
]
