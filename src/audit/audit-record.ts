import { hash } from 'node:crypto'

/** What somebody changed, or was refused. Holds no secret and no prompt. */
export interface AuditEntry {
  readonly kind: 'change' | 'denial'
  /** Of a change its type, such as "service.registered"; of a denial the RPC, or "*" where denials of several share it. */
  readonly action: string
  /** Subject of the caller, such as "key:<key id>". */
  readonly actor: string
  /** Kind and id, such as "service/<id>"; empty when a denial is about none. */
  readonly resource: string
  /**
   * Of a change the organization that the resource belongs to; of a denial the actor's, because nobody shall write into
   * the log of an organization by naming it. Empty for none.
   */
  readonly organizationId: string
  /** Why, in the caller's words for a change, in the gate's for a denial. */
  readonly reason: string
  /** How many times; more than one only for denials. */
  readonly count: number
  readonly requestId: string
  readonly address: string
  readonly userAgent: string
  /** JSON of the resource before and after; null for none. */
  readonly before: string | null
  readonly after: string | null
}

/** An entry that has its identity, so that it can be written again without being there twice. */
export interface IdentifiedEntry extends AuditEntry {
  /** UUIDv7. */
  readonly id: string
  /** Unix milliseconds at which it happened, for the first time if it did several times. */
  readonly createdAtMs: number
}

/** An entry in its place in a chain. */
export interface AuditRecord extends IdentifiedEntry {
  readonly chain: number
  /** From 1, without a gap in its chain. */
  readonly sequence: number
  /** Of the record before in the chain; empty for the first. */
  readonly previousHash: string
}

/** SHA-256 in hex of all that a record says and of its place, the hash before it included. */
export function auditHash(record: AuditRecord): string {
  const said = [
    record.chain,
    record.sequence,
    record.previousHash,
    record.id,
    record.createdAtMs,
    record.kind,
    record.action,
    record.actor,
    record.resource,
    record.organizationId,
    record.reason,
    record.count,
    record.requestId,
    record.address,
    record.userAgent,
    record.before,
    record.after,
  ]
  return hash('sha256', JSON.stringify(said))
}
