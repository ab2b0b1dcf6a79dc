import { TollgateError } from '../errors.ts'

/** Whether an organization, a project, a consumer or a user may call. */
export type Standing = 'active' | 'suspended' | 'closed'

/**
 * The standing that follows from the one that was and the one that is wanted. All moves are allowed but those away from
 * `closed`, which is final: throws STATUS_FINAL. `field` is the path of the request field.
 */
export function nextStanding(was: Standing, wanted: Standing, field: string): Standing {
  if (was !== 'closed' || wanted === 'closed') return wanted
  const description = `is closed, which is final: it does not become ${wanted}`
  throw new TollgateError('STATUS_FINAL', `${field}: ${description}. Create another one.`, {
    metadata: { field, status: was, wanted },
    fields: [{ field, description, rule: 'transition' }],
  })
}
