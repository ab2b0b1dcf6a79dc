/**
 * The trail of the control plane. Whoever changes a resource records the **change** in the transaction that makes it: as a
 * record of the audit log, which says who, from where, why, and what was before; and as a row of the log of changes, which
 * says what is now, for watchers of the registry and for the domain events that go out. Both are there when the transaction
 * commits, or neither is.
 */
import type { JsonValue } from '@bufbuild/protobuf'
import { appendAudit } from '../audit/append-audit.ts'
import { newId } from '../ids.ts'
import type { Transaction } from '../storage/postgres.ts'
import type { Actor } from './actor.ts'
import type { ChangeType } from './change-types.ts'

export interface Change {
  /** Kind of the resource, and what became of it, such as "service.registered". */
  readonly type: ChangeType
  /** Id of the resource. */
  readonly id: string
  /** Organization that the resource belongs to; empty for none. */
  readonly organizationId: string
  /** The resource before and after, as `resourceJson` makes it; undefined: it did not exist, or does not any more. */
  readonly before?: JsonValue | undefined
  readonly after?: JsonValue | undefined
  /** Why, in the words of whoever asked for it; default empty. */
  readonly reason?: string
}

/**
 * Records a change; returns its position in the log of changes. Positions rise in the order of commits: from here to its end
 * the transaction is the only one that changes the control plane. To be called after the change itself.
 */
export async function recordChange(tx: Transaction, actor: Actor, change: Change): Promise<number> {
  const { type, id, organizationId, before, after, reason = '' } = change
  const kind = type.slice(0, type.indexOf('.'))
  const [moved] = await tx<{ version: number }[]>`
    update control_version set version = version + 1 returning version`
  if (moved === undefined) throw new Error('control_version has lost its row')
  await tx`
    insert into changes (position, id, type, resource_kind, resource_id, actor, request_id, created_at, resource)
    values (${moved.version}, ${newId()}, ${type}, ${kind}, ${id}, ${actor.subject}, ${actor.requestId}, now(),
      ${textOf(after)}::jsonb)`
  await appendAudit(tx, {
    kind: 'change',
    action: type,
    actor: actor.subject,
    resource: `${kind}/${id}`,
    organizationId,
    reason,
    count: 1,
    requestId: actor.requestId,
    address: actor.address,
    userAgent: actor.userAgent,
    before: textOf(before),
    after: textOf(after),
  })
  return moved.version
}

function textOf(json: JsonValue | undefined): string | null {
  return json === undefined ? null : JSON.stringify(json)
}
