import { type Reason, reasons, type TollgateError } from '../errors.ts'
import type { AuditEntry } from './audit-record.ts'

/** A call that was denied, as the audit log tells of it. */
export type Denial = Omit<AuditEntry, 'kind' | 'count' | 'before' | 'after'>

/**
 * Whether a reason says that somebody who is known may not do something. That is every reason with the status
 * PERMISSION_DENIED, whoever adds one; and the use of a key that was good once, because only its holder is told so. A wrong
 * credential is nobody's, and is counted in `http_requests_failed_total`, not recorded.
 */
export function isDenial(reason: Reason): boolean {
  return reasons[reason].grpc === permissionDenied || formerKeys.has(reason)
}

/** Of google.rpc.Code. */
const permissionDenied = 7
const formerKeys: ReadonlySet<Reason> = new Set(['CREDENTIAL_REVOKED', 'CREDENTIAL_EXPIRED'])

/** What the request of a denied call named; empty for nothing. */
export interface Named {
  readonly consumerId: string
  readonly organizationId: string
  /** Kind and id of what it asked for, such as "user/<id>". */
  readonly resource: string
}

/** "consumer/<id>" and the like; empty when the denial is about nothing that has an id. */
export function deniedResource({ reason, metadata }: TollgateError, named: Named): string {
  if (reason === 'ORGANIZATION_MISMATCH' && named.organizationId !== '') {
    return `organization/${idText(named.organizationId)}`
  }
  if (formerKeys.has(reason) && metadata.keyId !== undefined) return `key/${idText(metadata.keyId)}`
  if (reason === 'CONSUMER_MISMATCH' && named.consumerId !== '') return `consumer/${idText(named.consumerId)}`
  for (const [key, kind] of kinds) {
    const id = metadata[key]
    if (id !== undefined && id !== '') return `${kind}/${idText(id)}`
  }
  if (named.resource !== '') return named.resource
  if (named.consumerId !== '') return `consumer/${idText(named.consumerId)}`
  return named.organizationId === '' ? '' : `organization/${idText(named.organizationId)}`
}

/** Metadata of errors that names a resource, what tells most first. */
const kinds = [
  ['serviceId', 'service'],
  ['projectId', 'project'],
  ['userId', 'user'],
  ['consumerId', 'consumer'],
  ['keyId', 'key'],
  ['organizationId', 'organization'],
] as const

/**
 * The reason with the facts that belong to the gate: "PERMISSION_MISSING permission=services.write". The message of an error
 * is left out: it may quote its caller.
 */
export function deniedReason({ reason, metadata }: TollgateError): string {
  const said = facts.flatMap((name) => {
    const value = metadata[name]
    return value === undefined || value === '' ? [] : [`${name}=${idText(value)}`]
  })
  return [reason, ...said].join(' ')
}

const facts = ['permission', 'policyId', 'scope', 'item', 'field', 'status'] as const

/** What a caller sent in place of an id may be anything, a prompt or a secret among it: then only that is said. */
export function idText(text: string): string {
  return /^[A-Za-z0-9._:@/-]{1,64}$/.test(text) ? text : '(not an id)'
}
