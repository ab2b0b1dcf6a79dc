import type { JsonObject, JsonValue, MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import { AuditKind, type AuditRecordSchema } from '../../gen/marketplace/v1/audit_pb.ts'
import type { AuditRecord } from './audit-record.ts'
import type { AuditRow } from './audit-store.ts'

/** A record as its readers see it. */
export function auditMessage(row: AuditRow): MessageInitShape<typeof AuditRecordSchema> {
  const { id, action, actor, resource, reason, count, address, chain, hash } = row
  return {
    id,
    time: timestampFromDate(row.created_at),
    kind: kinds[row.kind],
    action,
    actor,
    resource,
    organizationId: row.organization_id,
    reason,
    count,
    requestId: row.request_id,
    address,
    userAgent: row.user_agent,
    ...(row.before !== null && { before: jsonOf(row.before) }),
    ...(row.after !== null && { after: jsonOf(row.after) }),
    chain,
    sequence: BigInt(row.sequence),
    hash,
  }
}

/** Undefined for the unspecified one. */
export function auditKind(kind: AuditKind): AuditRecord['kind'] | undefined {
  return kind === AuditKind.CHANGE ? 'change' : kind === AuditKind.DENIAL ? 'denial' : undefined
}

const kinds: Readonly<Record<AuditRecord['kind'], AuditKind>> = { change: AuditKind.CHANGE, denial: AuditKind.DENIAL }

/** Whoever tampered with a record must not keep the others from being read: what is no JSON is shown as its text. */
function jsonOf(text: string): JsonObject {
  try {
    const value: JsonValue = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch {
    // It is shown below.
  }
  return { text }
}
