import { TollgateError } from '../errors.ts'
import { actForAny, hasPermission, type Principal } from './principal.ts'

/**
 * The consumer that a request acts for: the one it names, or the credential's own when it names none.
 *
 * Throws INVALID_ARGUMENT when an administrator names none, CONSUMER_MISMATCH when a caller without
 * "consumers.actForAny" names another's (the authorization middleware refuses it before; this holds even without it),
 * and CREDENTIAL_MISSING for an anonymous caller. `field` is the proto name of the request field.
 */
export function ownConsumer(requestConsumerId: string, principal: Principal, field = 'consumer_id'): string {
  if (principal.kind === 'anonymous') throw new TollgateError('CREDENTIAL_MISSING', 'This call needs a credential.')
  if (requestConsumerId === '') {
    if (principal.kind === 'key') return principal.consumerId
    throw new TollgateError('INVALID_ARGUMENT', `${field} is required: an administrator has no consumer of its own.`, {
      fields: [{ field, description: 'an administrator has no consumer of its own: name one', rule: 'required' }],
    })
  }
  if (principal.kind === 'key' && requestConsumerId !== principal.consumerId && !hasPermission(principal, actForAny)) {
    throw new TollgateError('CONSUMER_MISMATCH', 'The credential may only act for its own consumer.', {
      metadata: { consumerId: principal.consumerId },
    })
  }
  return requestConsumerId
}
