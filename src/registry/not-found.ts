import { type Reason, TollgateError } from '../errors.ts'

/** ORGANIZATION_NOT_FOUND for an id; `field` names the request field that holds it, where it is one of several. */
export function organizationNotFound(organizationId: string, field?: string): TollgateError {
  return notFound('ORGANIZATION_NOT_FOUND', 'organization', organizationId, 'organizationId', field)
}

/** CONSUMER_NOT_FOUND for an id; `field` as above. */
export function consumerNotFound(consumerId: string, field?: string): TollgateError {
  return notFound('CONSUMER_NOT_FOUND', 'consumer', consumerId, 'consumerId', field)
}

/** PROJECT_NOT_FOUND for an id; `field` as above. */
export function projectNotFound(projectId: string, field?: string): TollgateError {
  return notFound('PROJECT_NOT_FOUND', 'project', projectId, 'projectId', field)
}

/** USER_NOT_FOUND for an id; `field` as above. */
export function userNotFound(userId: string, field?: string): TollgateError {
  return notFound('USER_NOT_FOUND', 'user', userId, 'userId', field)
}

/** KEY_NOT_FOUND for the id of a key; `field` as above. */
export function keyNotFound(keyId: string, field?: string): TollgateError {
  return notFound('KEY_NOT_FOUND', 'key', keyId, 'keyId', field)
}

/** KEY_NOT_FOUND for a `key_id` that is there for no consumer or for another one: callers cannot tell which. */
export function consumersKeyNotFound(keyId: string, consumerId: string): TollgateError {
  const field = 'key_id'
  return new TollgateError('KEY_NOT_FOUND', `${field}: Consumer ${consumerId} has no key ${keyId}.`, {
    metadata: { keyId, consumerId, field },
    fields: [{ field, description: 'the consumer has no key of this id', rule: 'exists' }],
  })
}

/** SERVICE_NOT_FOUND for an id or a name; `field` as above. */
export function serviceNotFound(serviceId: string, field?: string): TollgateError {
  return notFound('SERVICE_NOT_FOUND', 'service', serviceId, 'serviceId', field)
}

/** LIMIT_NOT_FOUND for the id of something that could have limits, and is not there; `field` as above. */
export function limitedNotFound(id: string, field?: string): TollgateError {
  return notFound('LIMIT_NOT_FOUND', 'organization, consumer, key or service', id, 'subjectId', field)
}

function notFound(reason: Reason, noun: string, id: string, key: string, field: string | undefined): TollgateError {
  const message = `There is no ${noun} ${id}.`
  if (field === undefined) return new TollgateError(reason, message, { metadata: { [key]: id } })
  return new TollgateError(reason, `${field}: ${message}`, {
    metadata: { [key]: id, field },
    fields: [{ field, description: `there is no ${noun} of this id`, rule: 'exists' }],
  })
}
