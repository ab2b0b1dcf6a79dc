import type { Role } from './principal.ts'
import type { Standing } from './standing.ts'

/** A person or a workload that somebody else vouches for, as snapshots hold it. */
export interface UserRecord {
  /** UUID, lower case. */
  readonly id: string
  /** Undefined: it belongs to the whole platform. */
  readonly organizationId: string | undefined
  /** Issuer of its tokens; "spiffe" or "x509" for the certificate of a client. */
  readonly issuer: string
  readonly subject: string
  readonly displayName: string
  readonly email: string
  readonly status: Standing
  readonly roles: readonly Role[]
  /** Consumer that it may call for; undefined: none. */
  readonly consumerId: string | undefined
}

/** Key of `Snapshot.usersBySubject`. The length keeps apart what two pairs would spell alike. */
export function userKey(issuer: string, subject: string): string {
  return `${issuer.length}:${issuer}${subject}`
}
