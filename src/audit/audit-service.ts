import { timestampMs } from '@bufbuild/protobuf/wkt'
import type { AuditService } from '../../gen/marketplace/v1/audit_pb.ts'
import type { Handlers } from '../call.ts'
import { confinedOrganization } from '../identity/confine.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { auditKind, auditMessage } from './audit-message.ts'
import { type AuditPlace, selectAudit } from './audit-store.ts'

/** marketplace.v1.AuditService on Postgres. Whoever reaches one organization sees the records of that one. */
export function createAuditService({ sql }: { readonly sql: Sql }): Handlers<typeof AuditService.method> {
  return {
    async listAuditRecords(request, call) {
      const { action, actor, resource, startTime, endTime } = request
      const filter = {
        kind: auditKind(request.kind),
        action,
        actor,
        resource,
        organizationId: confinedOrganization(call.principal, 'audit.read', request.organizationId) ?? '',
        startMs: startTime === undefined ? undefined : timestampMs(startTime),
        endMs: endTime === undefined ? undefined : timestampMs(endTime),
      }
      const size = pageSizeOf(request.pageSize)
      const after = placeOf(request.pageToken)
      const rows = await storing(() => selectAudit(sql, filter, after, size + 1))
      const page = pageOf(rows, size, (row) => [String(row.created_at.getTime()), row.id])
      return { records: page.rows.map(auditMessage), nextPageToken: page.nextPageToken }
    },
  }
}

function placeOf(token: string): AuditPlace | undefined {
  const [createdAtMs, id] =
    parsePageToken(token, 2, (part, index) => (index === 0 ? /^\d{1,13}$/.test(part) : isUuid(part))) ?? []
  return createdAtMs === undefined || id === undefined ? undefined : { createdAtMs: Number(createdAtMs), id }
}
