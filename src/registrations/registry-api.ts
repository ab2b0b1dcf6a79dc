/**
 * marketplace.v1.RegistryApi: the LLM-Registry of reference 004 §6.1 as a layer of words. Every call goes on to the Registry,
 * which does the work; what is here turns registrations into its messages, and back.
 */
import { create, fromJson, type MessageInitShape, toJson } from '@bufbuild/protobuf'
import { ValueSchema } from '@bufbuild/protobuf/wkt'
import type {
  RegistrationSchema,
  RegistryApi,
  ReplaceRegistrationRequest,
} from '../../gen/marketplace/v1/registry_api_pb.ts'
import {
  ListServicesRequestSchema,
  RegisterServiceRequestSchema,
  type Registry,
  type Service,
  ServiceSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import { RetireServiceRequestSchema } from '../../gen/marketplace/v1/service_lifecycle_pb.ts'
import { OwnerSchema } from '../../gen/marketplace/v1/service_profile_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { compileFieldRules } from '../field-rules.ts'
import { listServices } from '../registry/list-services.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { mayChange } from '../registry/service-access.ts'
import { createServiceLookup } from '../registry/service-lookup.ts'
import { serviceMessage } from '../registry/service-message.ts'
import type { Snapshot, SnapshotSource } from '../registry/snapshot.ts'
import { followStatedLife } from './follow-life.ts'
import { inWords, type ReadRegistration, type RegistrationJson, readRegistration } from './read-registration.ts'
import { registrationOf } from './registration.ts'
import { noteLabels } from './registration-notes.ts'
import { replaceService } from './replace-service.ts'

export interface RegistryApiOptions {
  /** Does the work. */
  readonly registry: Handlers<typeof Registry.method>
  readonly snapshots: SnapshotSource
  /** Names this installation. */
  readonly source: string
  /** Address of this gate, told to those who do not see endpoints; undefined: nothing is. */
  readonly gateUrl: string | undefined
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
}

export function createRegistryApi(options: RegistryApiOptions): Handlers<typeof RegistryApi.method> {
  const { snapshots, source, gateUrl, now = Date.now } = options
  const rules = compileFieldRules([ServiceSchema])
  const registerService = implemented(options.registry.registerService)
  const retireService = implemented(options.registry.retireService)
  const serviceOf = createServiceLookup(snapshots)

  function shown(record: ServiceRecord, call: Call): MessageInitShape<typeof RegistrationSchema> {
    const service = create(ServiceSchema, serviceMessage(record, now()))
    const tellsEndpoints = mayChange(call.principal, record.organizationId)
    const told = registrationOf(service, { source, gateUrl, tellsEndpoints })
    return {
      id: service.id,
      name: told.name,
      version: told.version,
      registeredAt: service.createTime,
      updatedAt: service.updateTime,
      providerId: told.provider_id,
      capabilities: told.capabilities.map(({ name, value }) => ({ name, value: fromJson(ValueSchema, value) })),
      metadata: told.metadata,
    }
  }

  /** The service as it is now; the handlers that changed it refreshed the snapshot. */
  async function current(id: string, call: Call): Promise<MessageInitShape<typeof RegistrationSchema>> {
    return shown(await serviceOf(id, 'id'), call)
  }

  return {
    async addRegistration(request, call) {
      return await inOurWords(async () => {
        const read = readRegistration(jsonOf(request), rules)
        const asked = create(RegisterServiceRequestSchema, {
          service: withNotes(read, request.providerId, snapshots.current()),
        })
        const added = create(ServiceSchema, await registerService(asked, call))
        const record = await serviceOf(added.id, 'id')
        await followStatedLife({ ...options, now }, record, read.life, { resumes: false, activates: false }, call)
        return { id: added.id, name: added.name, version: added.version, registeredAt: added.createTime }
      })
    },

    getRegistration: ({ id }, call) => current(id, call),

    async listRegistrations({ pageSize, pageToken, name, version }, call) {
      const all = snapshots.current().servicesById.values()
      const wanted = version === '' ? all : [...all].filter((service) => service.version === version)
      const page = listServices(wanted, create(ListServicesRequestSchema, { pageSize, pageToken, name }))
      return { services: page.rows.map((record) => shown(record, call)), nextPageToken: page.nextPageToken }
    },

    async replaceRegistration(request, call) {
      return await inOurWords(async () => {
        const record = await serviceOf(request.id, 'id')
        const known = create(ServiceSchema, serviceMessage(record, now()))
        const read = readRegistration(jsonOf(request), rules, known.endpoints)
        const wanted = withNotes(read, request.providerId, snapshots.current())
        await replaceService({ ...options, now }, { record, known, wanted, read }, call)
        return current(record.id, call)
      })
    },

    async removeRegistration({ id }, call) {
      const { id: known } = await serviceOf(id, 'id')
      await retireService(create(RetireServiceRequestSchema, { id: known }), call)
      return current(known, call)
    },
  }
}

/**
 * A service with what its registration says of where it comes from. An organization of this registry that provides it is its
 * owner; whether the caller speaks for it, the Registry asks.
 */
function withNotes(read: ReadRegistration, providerId: string, { organizationsById }: Snapshot): Service {
  const isOwner = organizationsById.has(providerId)
  const { service, source, serviceId, revision, life } = read
  const notes = { providerId: isOwner ? '' : providerId, source, serviceId, revision, status: life.status }
  const owner = { organizationId: isOwner ? providerId : '', contact: service.owner?.contact ?? '' }
  return {
    ...service,
    labels: noteLabels.with(service.labels, notes),
    owner: create(OwnerSchema, owner),
  }
}

function jsonOf(
  request: Pick<ReplaceRegistrationRequest, 'name' | 'version' | 'capabilities' | 'metadata'>,
): RegistrationJson {
  const { name, version, capabilities, metadata = {} } = request
  return {
    name,
    version,
    capabilities: capabilities.map((each) => {
      return { name: each.name, value: each.value === undefined ? true : toJson(ValueSchema, each.value) }
    }),
    metadata,
  }
}

/** Field errors of the Registry, by the names that the fields have in a registration. */
async function inOurWords<T>(work: () => Promise<T>): Promise<T> {
  return await work().catch((error: unknown) => {
    throw inWords(error)
  })
}

function implemented<H>(handler: H | undefined): H {
  if (handler === undefined) throw new Error('the registry API stands on an RPC that has no implementation')
  return handler
}
