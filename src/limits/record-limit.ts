import { LimitSchema } from '../../gen/marketplace/v1/limits_pb.ts'
import type { Actor } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import type { Transaction } from '../storage/postgres.ts'
import { limitMessage } from './limit-message.ts'
import { type LimitRow, type RuleKey, selectLimitOwner } from './limit-store.ts'

export interface LimitChange {
  readonly type: 'limit.set' | 'limit.deleted'
  readonly key: RuleKey
  /** Undefined where there was, or is, no rule. */
  readonly before: LimitRow | undefined
  readonly after: LimitRow | undefined
  readonly reason: string
}

/** Records what became of a rule, in the transaction that changed it. Its id is what makes it one, in the words of the store. */
export async function recordLimit(tx: Transaction, actor: Actor, change: LimitChange): Promise<void> {
  const { scope, subject_id, service_id, name } = change.key
  await recordChange(tx, actor, {
    type: change.type,
    id: [scope, subject_id, ...(service_id === '' ? [] : [service_id]), name].join('/'),
    organizationId: await selectLimitOwner(tx, change.key),
    before: jsonOf(change.before),
    after: jsonOf(change.after),
    reason: change.reason,
  })
}

function jsonOf(row: LimitRow | undefined) {
  return row === undefined ? undefined : resourceJson(LimitSchema, limitMessage(row))
}
