import { create, fromJson, type JsonValue, toJson } from '@bufbuild/protobuf'
import { type PolicySpec, PolicySpecSchema } from '../../gen/marketplace/v1/policy_pb.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import type { ActiveMode, PolicyRecord } from './policy-record.ts'

/** Statements on policies and their versions. */

export interface PolicyRow {
  readonly id: string
  readonly name: string
  readonly description: string
  readonly mode: ActiveMode | 'disabled'
  readonly active_version: number | null
  readonly latest_version: number
  readonly created_at: Date
  readonly updated_at: Date
}

export interface PolicyVersionRow {
  readonly policy_id: string
  readonly version: number
  readonly spec: JsonValue
  readonly comment: string
  readonly created_at: Date
  readonly created_by: string
}

/** The policies in force. */
export async function selectActivePolicies(tx: Transaction): Promise<PolicyRecord[]> {
  const rows = await tx<{ id: string; name: string; version: number; mode: ActiveMode; spec: JsonValue }[]>`
    select p.id, p.name, v.version, p.mode, v.spec
    from policies p join policy_versions v on v.policy_id = p.id and v.version = p.active_version
    where p.mode <> 'disabled' order by p.name`
  return rows.map(({ spec, ...row }) => ({ ...row, spec: storedSpec(spec) }))
}

/** A rule that this release cannot read has no kind, and counts as one that cannot be evaluated. */
export function storedSpec(json: JsonValue): PolicySpec {
  try {
    return fromJson(PolicySpecSchema, json)
  } catch {
    return create(PolicySpecSchema)
  }
}

/** By id or name. */
export async function selectPolicy(sql: Sql | Transaction, idOrName: string): Promise<PolicyRow | undefined> {
  const [row] = await sql<PolicyRow[]>`
    select p.*, (select max(version) from policy_versions v where v.policy_id = p.id) as latest_version
    from policies p where p.id::text = ${idOrName} or p.name = ${idOrName}`
  return row
}

/** As {@link selectPolicy}, and keeps others from changing it until the transaction ends. */
export async function lockPolicy(tx: Transaction, idOrName: string): Promise<PolicyRow | undefined> {
  await tx`select 1 from policies where id::text = ${idOrName} or name = ${idOrName} for update`
  return await selectPolicy(tx, idOrName)
}

export async function selectPolicies(sql: Sql, afterName: string, limit: number): Promise<PolicyRow[]> {
  return await sql<PolicyRow[]>`
    select p.*, (select max(version) from policy_versions v where v.policy_id = p.id) as latest_version
    from policies p where p.name > ${afterName} order by p.name limit ${limit}`
}

export async function insertPolicy(
  tx: Transaction,
  { id, name, description }: Pick<PolicyRow, 'id' | 'name' | 'description'>,
): Promise<void> {
  await tx`insert into policies (id, name, description, mode) values (${id}, ${name}, ${description}, 'disabled')`
}

/** Adds the next version of a policy that is locked or new. */
export async function insertVersion(
  tx: Transaction,
  policyId: string,
  spec: PolicySpec,
  comment: string,
  createdBy: string,
): Promise<PolicyVersionRow> {
  const json = JSON.stringify(toJson(PolicySpecSchema, spec))
  const [row] = await tx<PolicyVersionRow[]>`
    insert into policy_versions (policy_id, version, spec, comment, created_by)
    select ${policyId}::uuid, coalesce(max(version), 0) + 1, ${json}::jsonb, ${comment}::text, ${createdBy}::text
    from policy_versions where policy_id = ${policyId}
    returning *`
  if (row === undefined) throw new Error('an insert returned no row')
  return row
}

export async function selectVersion(
  sql: Sql | Transaction,
  policyId: string,
  version: number,
): Promise<PolicyVersionRow | undefined> {
  const [row] = await sql<PolicyVersionRow[]>`
    select * from policy_versions where policy_id = ${policyId} and version = ${version}`
  return row
}

/** Newest first. */
export async function selectVersions(
  sql: Sql,
  policyId: string,
  before: number | undefined,
  limit: number,
): Promise<PolicyVersionRow[]> {
  return await sql<PolicyVersionRow[]>`
    select * from policy_versions
    where policy_id = ${policyId} and version < ${before ?? Number.MAX_SAFE_INTEGER}
    order by version desc limit ${limit}`
}

export async function updateActive(
  tx: Transaction,
  policyId: string,
  mode: PolicyRow['mode'],
  version: number | null,
): Promise<void> {
  await tx`update policies set mode = ${mode}, active_version = ${version}, updated_at = now() where id = ${policyId}`
  if (version === null || mode === 'disabled') return
  await tx`
    insert into policy_activations (policy_id, version) values (${policyId}, ${version}) on conflict do nothing`
}

/** The newest version below `version` that has been in force. */
export async function versionBefore(tx: Transaction, policyId: string, version: number): Promise<number | undefined> {
  const [row] = await tx<{ version: number }[]>`
    select version from policy_activations
    where policy_id = ${policyId} and version < ${version} order by version desc limit 1`
  return row?.version
}
