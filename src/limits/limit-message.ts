import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import { type Limit, LimitName, type LimitSchema, LimitScope } from '../../gen/marketplace/v1/limits_pb.ts'
import { TollgateError } from '../errors.ts'
import type { LimitName as LimitNameText, LimitScope as LimitScopeText } from './limit-rule.ts'
import type { LimitRow, RuleKey } from './limit-store.ts'

/** A rule as its administrators see it. */
export function limitMessage(row: LimitRow): MessageInitShape<typeof LimitSchema> {
  return {
    scope: scopes[row.scope],
    subjectId: row.subject_id,
    serviceId: row.service_id,
    name: names[row.name],
    amount: BigInt(row.amount),
    ...(row.burst !== null && { burst: BigInt(row.burst) }),
    currency: row.currency ?? '',
    updateTime: timestampFromDate(row.updated_at),
  }
}

/** The row of a limit to store. Throws INVALID_ARGUMENT as {@link ruleKeyOf} does. */
export function limitRow(limit: Limit | undefined): Omit<LimitRow, 'updated_at'> {
  return {
    ...ruleKeyOf(limit),
    amount: Number(limit?.amount ?? 0n),
    burst: limit?.burst === undefined ? null : Number(limit.burst),
    currency: limit?.currency || null,
  }
}

/** Which rule a request means. Throws INVALID_ARGUMENT without scope or name, which the contract's rules refuse before. */
export function ruleKeyOf(limit: Pick<Limit, 'scope' | 'subjectId' | 'serviceId' | 'name'> | undefined): RuleKey {
  const scope = scopeText(limit?.scope)
  const name = limitNames.find((text) => names[text] === limit?.name)
  if (limit === undefined || scope === undefined || name === undefined) {
    throw new TollgateError('INVALID_ARGUMENT', 'A limit has a scope and a name.')
  }
  return { scope, subject_id: limit.subjectId, service_id: limit.serviceId, name }
}

/** Undefined for the unspecified one. */
export function scopeText(scope: LimitScope | undefined): LimitScopeText | undefined {
  return limitScopes.find((text) => scopes[text] === scope)
}

/** Whether text is a scope as stored. */
export function isScope(text: string): text is LimitScopeText {
  return Object.hasOwn(scopes, text)
}

/** Whether text is a name as stored. */
export function isName(text: string): text is LimitNameText {
  return Object.hasOwn(names, text)
}

const scopes: Readonly<Record<LimitScopeText, LimitScope>> = {
  organization: LimitScope.ORGANIZATION,
  consumer: LimitScope.CONSUMER,
  key: LimitScope.KEY,
  service: LimitScope.SERVICE,
  service_consumer: LimitScope.SERVICE_CONSUMER,
}

const names: Readonly<Record<LimitNameText, LimitName>> = {
  requests_per_second: LimitName.REQUESTS_PER_SECOND,
  requests_per_minute: LimitName.REQUESTS_PER_MINUTE,
  tokens_per_minute: LimitName.TOKENS_PER_MINUTE,
  concurrent_requests: LimitName.CONCURRENT_REQUESTS,
  tokens_per_month: LimitName.TOKENS_PER_MONTH,
  cost_per_month: LimitName.COST_PER_MONTH,
}

const limitScopes = Object.keys(scopes).filter(isScope)
const limitNames = Object.keys(names).filter(isName)
