import { ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { systemActor } from '../../src/control/actor.ts'
import { recordChange } from '../../src/control/record-change.ts'
import { resourceJson } from '../../src/control/resource-json.ts'
import type { Sql } from '../../src/storage/postgres.ts'

const actor = systemActor('test')

/** Services by id that only count: the description of each is how often it was changed. */
export interface CountedService {
  readonly id: string
  readonly name: string
}

/** Registers a service that was never changed; returns the position of that. */
export function registerCounted(sql: Sql, { id, name }: CountedService): Promise<number> {
  return sql.begin(async (tx) => {
    await tx`
      insert into services (id, name, version, description, status, default_max_output_tokens)
      values (${id}, ${name}, '1.0.0', '0', 'active', 1)`
    const after = resourceJson(ServiceSchema, { id, name, version: '1.0.0', description: '0' })
    return recordChange(tx, actor, { type: 'service.registered', id, organizationId: '', after })
  })
}

/** Changes a service once; returns the position of that. */
export function countUp(sql: Sql, { id, name }: CountedService): Promise<number> {
  return sql.begin(async (tx) => {
    const [row] = await tx<{ description: string }[]>`
      update services set description = (description::int + 1)::text where id = ${id} returning description`
    const after = resourceJson(ServiceSchema, { id, name, version: '1.0.0', description: row?.description ?? '' })
    return recordChange(tx, actor, { type: 'service.updated', id, organizationId: '', after })
  })
}
