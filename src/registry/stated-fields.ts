import { create, type JsonObject, toJson } from '@bufbuild/protobuf'
import { ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { TollgateError } from '../errors.ts'
import { isObject } from '../is-object.ts'
import type { ServiceRecord } from './records.ts'
import { serviceMessage } from './service-message.ts'

/**
 * What an outside registry states of a service, by the names in the proto. All else (how the gate routes, caches and falls
 * back, what it keeps back for an answer) is a matter of the gate, as prices and traffic splits are.
 */
export const statedFields = [
  'description',
  'endpoints',
  'refuses_stream_options',
  'json_pointers',
  'category',
  'tags',
  'labels',
  'owner',
  'documentation_url',
  'service_level',
  'capabilities',
  'compliance',
] as const

/**
 * Refuses a change by hand of what the outside registry states which a service comes from: it would be undone. An operator's
 * suspension is no such change, nor is its end. Throws SERVICE_OUTSIDE, naming the field.
 */
export function refuseStated(before: ServiceRecord, after: ServiceRecord, nowMs: number): void {
  const { origin } = before
  if (origin === undefined) return
  const field = changesLife(before, after) ? 'status' : changedField(before, after, nowMs)
  if (field === undefined) return
  const description = `is stated by the outside registry ${origin.registry}: change it there`
  throw new TollgateError('SERVICE_OUTSIDE', `service.${field} ${description}.`, {
    metadata: { field: `service.${field}`, registry: origin.registry, outsideId: origin.id },
    fields: [{ field: `service.${field}`, description, rule: 'outside' }],
  })
}

function changesLife(before: ServiceRecord, after: ServiceRecord): boolean {
  if (before.deprecation !== after.deprecation) return true
  if (before.status === after.status || after.status === 'suspended') return false
  return before.status !== 'suspended' || before.origin?.hold !== undefined
}

function changedField(before: ServiceRecord, after: ServiceRecord, nowMs: number): string | undefined {
  const [one, other] = [jsonOf(before, nowMs), jsonOf(after, nowMs)]
  return statedFields.find((name) => JSON.stringify(one[name]) !== JSON.stringify(other[name]))
}

function jsonOf(service: ServiceRecord, nowMs: number): JsonObject {
  const json = toJson(ServiceSchema, create(ServiceSchema, serviceMessage(service, nowMs)), { useProtoFieldName: true })
  return isObject(json) ? json : {}
}
