import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf'
import type { Call } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import type { ChangeType } from '../control/change-types.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import type { Transaction } from '../storage/postgres.ts'

export interface ResourceChange<D extends DescMessage> {
  readonly type: Extract<ChangeType, `${string}.created` | `${string}.updated`>
  readonly id: string
  /** Empty for none. */
  readonly organizationId: string
  readonly schema: D
  /** Undefined: it was created. */
  readonly before?: MessageInitShape<D>
  readonly after: MessageInitShape<D>
  /** Why, in the caller's words. */
  readonly reason?: string
}

/** Records what a call made of a resource; as `recordChange`. */
export async function recordResource<D extends DescMessage>(
  tx: Transaction,
  call: Call,
  change: ResourceChange<D>,
): Promise<void> {
  const { type, id, organizationId, schema, before, after, reason } = change
  await recordChange(tx, actorOf(call), {
    type,
    id,
    organizationId,
    before: before && resourceJson(schema, before),
    after: resourceJson(schema, after),
    ...(reason !== undefined && { reason }),
  })
}
