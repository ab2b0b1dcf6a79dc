import { create, type JsonObject, type MessageInitShape } from '@bufbuild/protobuf'
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt'
import { Registry, type Service, type ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import {
  type PostgresServer,
  type PostgresServerOptions,
  silentLog,
  startPostgresServer,
} from '../../test/support/postgres-server.ts'
import type { Caller, Principal } from '../identity/principal.ts'
import { newId } from '../ids.ts'
import { createRegistryService } from './registry-service.ts'
import { createSnapshots, type Snapshots, type SnapshotsOptions } from './snapshots.ts'

type Init = Exclude<MessageInitShape<typeof ServiceSchema>, Service>

/** The registry's handlers on a Postgres, and the snapshot that follows it: for the tests of a file. */
export async function startRegistry(options?: PostgresServerOptions): Promise<TestRegistry> {
  const registry = new TestRegistry(await startPostgresServer(options))
  try {
    await registry.snapshots.start()
    return registry
  } catch (err) {
    await registry.close()
    throw err
  }
}

export class TestRegistry {
  readonly server: PostgresServer
  readonly snapshots: Snapshots
  readonly handlers: ReturnType<typeof createRegistryService>
  readonly #replicas: Snapshots[] = []

  constructor(server: PostgresServer) {
    this.server = server
    this.snapshots = this.#snapshotsOf({})
    this.handlers = createRegistryService({ sql: server.sql, snapshots: this.snapshots, newId })
  }

  register(changes: Init = {}, principal: Principal = administrator): Promise<Service> {
    const service = {
      name: `service-${newId()}`,
      version: '1.0.0',
      endpoints: [{ url: 'https://a.example/v1', credentialRef: 'env:TOKEN' }, { url: 'https://b.example/v1' }],
      ...changes,
    }
    return invoke(Registry.method.registerService, this.handlers.registerService, { service }, principal)
  }

  update(service: Init | Service, paths?: string[], principal: Principal = administrator): Promise<Service> {
    const request = { service, ...(paths && { updateMask: create(FieldMaskSchema, { paths }) }) }
    return invoke(Registry.method.updateService, this.handlers.updateService, request, principal)
  }

  /** Another replica: a snapshot of its own on the same database, which hardly ever polls. */
  async replica(options: Partial<SnapshotsOptions> = {}): Promise<Snapshots> {
    const made = this.#snapshotsOf(options)
    await made.start()
    return made
  }

  async organization(): Promise<string> {
    const id = newId()
    await this.server.sql`insert into organizations (id, name) values (${id}, ${id})`
    return id
  }

  /** What the log of changes and the audit log say of a resource, in order. */
  async trailOf(id: string): Promise<{ type: string; resource: JsonObject; before: string | null }[]> {
    return this.server.sql`
      select type, changes.resource, before, reason
      from changes join audit_records on audit_records.resource = resource_kind || '/' || resource_id and action = type
      where resource_id = ${id} order by position, sequence`
  }

  async close(): Promise<void> {
    await Promise.all(this.#replicas.map((each) => each.close()))
    await this.server.stop()
  }

  #snapshotsOf(options: Partial<SnapshotsOptions>): Snapshots {
    const made = createSnapshots({ sql: this.server.sql, log: silentLog, pollMs: 3_600_000, ...options })
    this.#replicas.push(made)
    return made
  }
}

/** Somebody who publishes services for an organization. */
export function publisher(organizationId: string): Caller {
  return { ...administrator, kind: 'key', subject: 'key:p', roles: ['publisher'], organizationId }
}
