import { create } from '@bufbuild/protobuf'
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt'
import {
  CreatePriceRequestSchema,
  type Endpoint,
  PricingSchema,
  type Service,
  UpdateServiceRequestSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { OwnerSchema } from '../../gen/marketplace/v1/service_profile_pb.ts'
import type { Call } from '../call.ts'
import { invalid, priceText } from '../registry/price-message.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { createServiceLookup } from '../registry/service-lookup.ts'
import { statedFields } from '../registry/stated-fields.ts'
import { type FollowLifeOptions, followStatedLife, mayApprove } from './follow-life.ts'
import type { ReadRegistration } from './read-registration.ts'
import { notesOf } from './registration-notes.ts'

/** A service, and what it is to be. */
export interface Replacement {
  readonly record: ServiceRecord
  /** The same in the contract. */
  readonly known: Service
  /** With the notes of its registration. */
  readonly wanted: Service
  readonly read: ReadRegistration
}

/**
 * Makes a service what its registration says: settings, then price, then status. A credential that an operator gave to an
 * address stays there, and so does its owner. Throws what the RPCs of Registry throw that do it.
 */
export async function replaceService(
  options: FollowLifeOptions,
  { record, known, wanted, read }: Replacement,
  call: Call,
): Promise<void> {
  const { registry, snapshots } = options
  const { id, name, version } = known
  for (const [field, one, other] of [
    ['name', name, wanted.name],
    ['version', version, wanted.version],
  ] as const) {
    if (one !== other) throw invalid(field, `is never changed: it is ${one}`, 'immutable')
  }
  const contact = wanted.owner?.contact ?? ''
  const owner = create(OwnerSchema, { organizationId: record.organizationId ?? '', contact })
  const endpoints = wanted.endpoints.map((endpoint) => withCredential(endpoint, known.endpoints))
  const asked = create(UpdateServiceRequestSchema, {
    service: { ...wanted, id, endpoints, owner },
    updateMask: create(FieldMaskSchema, { paths: [...statedFields] }),
  })
  await registry.updateService?.(asked, call)
  const { pricing } = wanted
  if (pricing !== undefined && priceText(pricing) !== priceText(known.pricing)) {
    const price = create(PricingSchema, { currency: pricing.currency, model: pricing.model })
    await registry.createPrice?.(create(CreatePriceRequestSchema, { serviceId: id, price }), call)
  }
  const isOwnSuspension = notesOf(known.labels).status === 'suspended'
  const leave = { resumes: isOwnSuspension, activates: mayApprove(call) }
  await followStatedLife(options, await createServiceLookup(snapshots)(id), read.life, leave, call)
}

function withCredential(endpoint: Endpoint, known: readonly Endpoint[]): Endpoint {
  const { url, protocol, credentialRef } = endpoint
  const same = known.find((each) => each.url === url && each.protocol === protocol)
  if (credentialRef !== '' || same === undefined) return endpoint
  return { ...endpoint, credentialRef: same.credentialRef, auth: same.auth }
}
