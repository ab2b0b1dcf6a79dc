import { generateKey, parseKey, secretTag } from '../identity/key-format.ts'
import type { SecretHasher } from '../identity/secret-hasher.ts'
import type { Sql } from '../storage/postgres.ts'

/** Ids of the demo data; fixed, so that seeding twice changes nothing. */
const organizationId = '00000000-0000-4000-8000-000000000001'
const limitedConsumerId = '00000000-0000-4000-8000-000000000012'

/** Ids that callers of the demo need. */
export const demoIds = {
  consumerId: '00000000-0000-4000-8000-000000000011',
  serviceId: '00000000-0000-4000-8000-000000000021',
  slowServiceId: '00000000-0000-4000-8000-000000000022',
} as const

/** Where the practice backends listen this time: their ports change from start to start. */
export interface DemoBackends {
  readonly backend: string
  readonly slowBackend: string
}

export interface DemoKeys {
  /** Of the enterprise consumer; empty when there is none yet. */
  readonly key: string
  /** Of the basic consumer. */
  readonly limitedKey: string
}

/** Puts the demo data into the database, as far as it is missing, and returns keys that work: `known` if they do. */
export async function seedDemo(
  sql: Sql,
  hasher: Pick<SecretHasher, 'hash'>,
  backends: DemoBackends,
  known: DemoKeys,
): Promise<DemoKeys> {
  await sql.begin(async (tx) => {
    await tx`insert into organizations (id, name) values (${organizationId}, 'Demo') on conflict do nothing`
    await tx`
      insert into consumers (id, organization_id, name, tier, status, granted_services) values
        (${demoIds.consumerId}, ${organizationId}, 'Enterprise team', 'enterprise', 'active', '{*}'),
        (${limitedConsumerId}, ${organizationId}, 'Basic team', 'basic', 'active', '{*}')
      on conflict do nothing`
    await tx`
      insert into services (id, name, version, description, status, default_max_output_tokens) values
        (${demoIds.serviceId}, 'practice', '1.0.0', 'Answers at once', 'active', 256),
        (${demoIds.slowServiceId}, 'practice-slow', '1.0.0', 'Answers after two seconds', 'active', 256)
      on conflict do nothing`
    for (const [serviceId, url] of [
      [demoIds.serviceId, backends.backend],
      [demoIds.slowServiceId, backends.slowBackend],
    ] as const) {
      await tx`
        insert into endpoints (id, service_id, position, url, protocol) values (${serviceId}, ${serviceId}, 0, ${url}, 'openai')
        on conflict (id) do update set url = excluded.url`
      await tx`
        insert into prices (service_id, version, effective_from, currency, kind, input_nanos_per_million,
          output_nanos_per_million, cached_input_nanos_per_million)
        values (${serviceId}, 'demo', '2020-01-01', 'USD', 'per_token', 500000000, 1500000000, 250000000)
        on conflict do nothing`
    }
  })
  return {
    key: await workingKey(sql, hasher, known.key, demoIds.consumerId),
    limitedKey: await workingKey(sql, hasher, known.limitedKey, limitedConsumerId),
  }
}

async function workingKey(
  sql: Sql,
  hasher: Pick<SecretHasher, 'hash'>,
  known: string,
  consumerId: string,
): Promise<string> {
  const parsed = parseKey(known)
  if (parsed !== undefined) {
    const [row] = await sql`
      select 1 from api_keys where id = ${parsed.keyId} and consumer_id = ${consumerId} and revoked_at is null`
    if (row !== undefined) return known
  }
  const { key, keyId } = generateKey(undefined, 'test')
  await sql`
    insert into api_keys (id, consumer_id, name, secret_hash, secret_tag)
    values (${keyId}, ${consumerId}, 'demo', ${await hasher.hash(key)}, ${secretTag(key)})`
  return key
}
