import type { IdentifiedEntry } from '../../src/audit/audit-record.ts'
import { newId } from '../../src/ids.ts'

/** A denial with an id of its own, as the audit log is given it; now, unless told otherwise. */
export function denialEntry(changes: Partial<IdentifiedEntry> = {}): IdentifiedEntry {
  return {
    id: newId(),
    createdAtMs: Date.now(),
    kind: 'denial',
    action: 'marketplace.v1.KeyService/ListKeys',
    actor: 'key:k',
    resource: '',
    organizationId: '',
    reason: 'CONSUMER_MISMATCH',
    count: 1,
    requestId: newId(),
    address: '::1',
    userAgent: 'grpc-node',
    before: null,
    after: null,
    ...changes,
  }
}
