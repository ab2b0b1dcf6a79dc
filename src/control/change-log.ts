import type { JsonValue } from '@bufbuild/protobuf'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { ResourceKind } from './change-types.ts'

/** Statements that read the log of changes. */

/** A change as the log has it. */
export interface LoggedChange {
  readonly position: number
  /** UUIDv7. */
  readonly id: string
  /** Such as "service.registered". */
  readonly type: string
  readonly resourceKind: ResourceKind
  readonly resourceId: string
  /** Subject of whoever made it. */
  readonly actor: string
  /** Empty for the process itself. */
  readonly requestId: string
  readonly createdAtMs: number
  /** The resource after the change, as Protobuf JSON; null when there is none. */
  readonly resource: JsonValue
}

export interface LogPage {
  /** Ascending by position. */
  readonly changes: readonly LoggedChange[]
  /** Every change up to here is in the page, or was before it. */
  readonly position: number
  /** Changes up to here may be gone: the page of a position before it is no continuation. */
  readonly horizon: number
}

export interface LogQuestion {
  readonly after: number
  /** Only changes of this kind; default all. */
  readonly kind?: ResourceKind
  /** At most this many. */
  readonly limit: number
}

/** The next changes after a position, at one instant. */
export async function selectChanges(sql: Sql, { after, kind, limit }: LogQuestion): Promise<LogPage> {
  return sql.begin(async (tx) => {
    const bounds = await selectBounds(tx)
    const rows = await tx<ChangeRow[]>`
      select position, id, type, resource_kind, resource_id, actor, request_id, created_at, resource
      from changes where position > ${after} ${kind === undefined ? tx`` : tx`and resource_kind = ${kind}`}
      order by position limit ${limit}`
    const last = rows.at(-1)
    return {
      changes: rows.map(loggedChange),
      position: rows.length === limit && last !== undefined ? last.position : Math.max(after, bounds.last),
      horizon: bounds.horizon,
    }
  }, 'isolation level repeatable read read only')
}

/** Where the log begins and ends. */
export interface LogBounds {
  /** Changes up to here may be gone. */
  readonly horizon: number
  /** No change that is committed is beyond. */
  readonly last: number
}

export async function selectBounds(sql: Sql | Transaction): Promise<LogBounds> {
  const [row] = await sql<LogBounds[]>`
    select h.position as horizon, v.version as last from change_horizon h, control_version v`
  if (row === undefined) throw new Error('change_horizon or control_version has lost its row')
  return row
}

export interface ChangeRow {
  readonly position: number
  readonly id: string
  readonly type: string
  readonly resource_kind: ResourceKind
  readonly resource_id: string
  readonly actor: string
  readonly request_id: string
  readonly created_at: Date
  readonly resource: JsonValue
}

export function loggedChange(row: ChangeRow): LoggedChange {
  return {
    position: row.position,
    id: row.id,
    type: row.type,
    resourceKind: row.resource_kind,
    resourceId: row.resource_id,
    actor: row.actor,
    requestId: row.request_id,
    createdAtMs: row.created_at.getTime(),
    resource: row.resource,
  }
}
