import { TollgateError } from '../errors.ts'
import type { ConsumerRecord } from '../registry/records.ts'
import { type Caller, isRole } from './principal.ts'
import type { IdentityClaims } from './token-claims.ts'
import type { UserRecord } from './user-record.ts'

/** Somebody whom others vouch for: whom a token or a client's certificate names. */
export interface OutsideIdentity {
  /** Issuer of the token; "spiffe" or "x509" for a certificate. No issuer of tokens is called so: they are URLs. */
  readonly issuer: string
  readonly subject: string
  /** Undefined for certificates, which say nothing but a name. */
  readonly claims: IdentityClaims | undefined
}

/** What matters of a user of the control plane. */
export type OutsideUser = Pick<UserRecord, 'status' | 'roles' | 'consumerId' | 'organizationId'>

export interface OutsideCallersOptions {
  /** The user that an issuer vouches for; undefined: there is none. Never waits. */
  readonly findUser: (issuer: string, subject: string) => OutsideUser | undefined
  readonly findConsumer: (consumerId: string) => Pick<ConsumerRecord, 'id' | 'organizationId' | 'status'> | undefined
  /** Whether the claims of a token are believed for subjects that are no users. */
  readonly trustClaims: boolean
  readonly log: { debug(fields: object, text: string): void }
}

/** Makes a caller of somebody whom others vouch for. */
export type OutsideCallers = (identity: OutsideIdentity) => Caller

/**
 * Who somebody from outside is here. A user of the control plane is what it says, whatever the token says: so a suspended
 * user stays out, and nobody's roles widen by a change at the issuer. Of other subjects the claims are believed, if they
 * are trusted at all. Throws USER_UNKNOWN, USER_INACTIVE, TOKEN_CONSUMER, CONSUMER_INACTIVE.
 */
export function createOutsideCallers(options: OutsideCallersOptions): OutsideCallers {
  const { findUser, findConsumer, trustClaims, log } = options

  function byClaims({ roles, consumerId, organizationId }: IdentityClaims): Omit<OutsideUser, 'status'> {
    const known = roles.filter(isRole)
    if (known.length < roles.length) {
      log.debug({ unknown: roles.filter((name) => !isRole(name)).slice(0, 20) }, 'roles of a token that are none here')
    }
    if (consumerId === undefined) return { roles: known, consumerId, organizationId }
    const consumer = findConsumer(consumerId)
    if (consumer === undefined) throw wrongConsumer(consumerId, 'does not exist')
    if (organizationId !== undefined && organizationId !== consumer.organizationId) {
      throw wrongConsumer(consumerId, 'belongs to another organization than it names')
    }
    return { roles: known, consumerId: consumer.id, organizationId: consumer.organizationId }
  }

  function believed({ issuer, subject, claims }: OutsideIdentity): Omit<OutsideUser, 'status'> {
    if (trustClaims && claims !== undefined) return byClaims(claims)
    throw new TollgateError('USER_UNKNOWN', `${subject} of ${issuer} is no user. An administrator can add one.`, {
      metadata: { issuer, subject },
    })
  }

  function callerOf(identity: OutsideIdentity): Caller {
    const { issuer, subject } = identity
    const user = findUser(issuer, subject)
    if (user !== undefined && user.status !== 'active') {
      throw new TollgateError('USER_INACTIVE', `The user ${subject} of ${issuer} is ${user.status}.`, {
        metadata: { issuer, subject, status: user.status },
      })
    }
    const { roles, consumerId, organizationId } = user ?? believed(identity)
    if (consumerId !== undefined) mustBeActive(consumerId)
    return { ...nameOf(identity), roles, consumerId, organizationId, keyId: undefined }
  }

  return (identity) => {
    try {
      return callerOf(identity)
    } catch (error) {
      throw error instanceof TollgateError ? error.withSubject(nameOf(identity).subject) : error
    }
  }

  function mustBeActive(consumerId: string): void {
    const status = findConsumer(consumerId)?.status
    if (status === undefined || status === 'active') return
    const message = `Consumer ${consumerId} is ${status}. An administrator can activate it.`
    throw new TollgateError('CONSUMER_INACTIVE', message, { metadata: { consumerId, status } })
  }
}

/** A certificate's name says by itself whose it is: a SPIFFE id has its trust domain, a subject no issuer but the CA. */
function nameOf({ issuer, subject, claims }: OutsideIdentity): Pick<Caller, 'kind' | 'subject'> {
  return claims === undefined
    ? { kind: 'workload', subject: `workload:${subject}` }
    : { kind: 'user', subject: `user:${issuer}|${subject}` }
}

function wrongConsumer(consumerId: string, why: string): TollgateError {
  const message = `The token names the consumer ${JSON.stringify(consumerId.slice(0, 100))}, which ${why}.`
  return new TollgateError('TOKEN_CONSUMER', message)
}
