import { TollgateError } from '../errors.ts'

/** CONSUMER_NOT_FOUND for an id. */
export function consumerNotFound(consumerId: string): TollgateError {
  return new TollgateError('CONSUMER_NOT_FOUND', `There is no consumer ${consumerId}.`, { metadata: { consumerId } })
}

/** SERVICE_NOT_FOUND for an id or a name. */
export function serviceNotFound(serviceId: string): TollgateError {
  return new TollgateError('SERVICE_NOT_FOUND', `There is no service ${serviceId}.`, { metadata: { serviceId } })
}
