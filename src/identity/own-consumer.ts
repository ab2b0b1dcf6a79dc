import { TollgateError } from '../errors.ts'
import type { Principal } from './principal.ts'

/**
 * The consumer that a request acts for: the one it names, or the credential's own when it names none. Whether the caller may
 * name it is decided before, by the `consumer` middleware, from what the contract declares.
 *
 * Throws INVALID_ARGUMENT when a caller without a consumer of its own names none, and CREDENTIAL_MISSING for an anonymous
 * caller. `field` is the proto name of the request field.
 */
export function ownConsumer(requestConsumerId: string, principal: Principal, field = 'consumer_id'): string {
  if (principal.kind === 'anonymous') throw new TollgateError('CREDENTIAL_MISSING', 'This call needs a credential.')
  const consumerId = requestConsumerId === '' ? principal.consumerId : requestConsumerId
  if (consumerId !== undefined) return consumerId
  throw new TollgateError('INVALID_ARGUMENT', `${field} is required: the credential has no consumer of its own.`, {
    fields: [{ field, description: 'the credential has no consumer of its own: name one', rule: 'required' }],
  })
}
