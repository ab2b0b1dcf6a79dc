import type { LimitService } from '../../gen/marketplace/v1/limits_pb.ts'
import type { Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { TollgateError } from '../errors.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import {
  consumerNotFound,
  keyNotFound,
  limitedNotFound,
  organizationNotFound,
  serviceNotFound,
} from '../registry/not-found.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { isName, isScope, limitMessage, limitRow, ruleKeyOf, scopeText } from './limit-message.ts'
import type { LimitScope } from './limit-rule.ts'
import {
  deleteLimit,
  type LimitFilter,
  type LimitRow,
  lockLimit,
  type RuleKey,
  selectLimits,
  subjectExists,
  upsertLimit,
} from './limit-store.ts'
import { recordLimit } from './record-limit.ts'

export interface LimitServiceOptions {
  readonly sql: Sql
  /** A write answers only after this process's snapshot holds it. */
  readonly snapshots: Pick<SnapshotSource, 'refresh'>
}

/** marketplace.v1.LimitService on Postgres. */
export function createLimitService({ sql, snapshots }: LimitServiceOptions): Handlers<typeof LimitService.method> {
  return {
    async setLimit({ limit, reason }, call) {
      const row = limitRow(limit)
      const stored = await storing(() =>
        sql.begin(async (tx) => {
          await checkSubjects(tx, row)
          const before = await lockLimit(tx, row)
          // An update to the same would still tell every gateway of a change.
          if (before !== undefined && isSame(before, row)) return before
          const after = await upsertLimit(tx, row)
          await recordLimit(tx, actorOf(call), { type: 'limit.set', key: row, before, after, reason })
          return after
        }),
      )
      await snapshots.refresh()
      return limitMessage(stored)
    },

    async deleteLimit(request, call) {
      const key = ruleKeyOf(request)
      await storing(() =>
        sql.begin(async (tx) => {
          const before = await lockLimit(tx, key)
          if (before === undefined) throw limitNotFound(key)
          await deleteLimit(tx, key)
          const { reason } = request
          await recordLimit(tx, actorOf(call), { type: 'limit.deleted', key, before, after: undefined, reason })
        }),
      )
      await snapshots.refresh()
      return {}
    },

    async listLimits({ scope, subjectId, serviceId, pageSize, pageToken }) {
      const filter = { scope: scopeText(scope), subjectId, serviceId }
      const size = pageSizeOf(pageSize)
      const after = parseLimitsToken(pageToken)
      const rows = await storing(async () => {
        await checkFilter(sql, filter)
        return selectLimits(sql, filter, after, size + 1)
      })
      const page = pageOf(rows, size, (row) => [row.scope, row.subject_id, row.service_id, row.name])
      return { limits: page.rows.map(limitMessage), nextPageToken: page.nextPageToken }
    },
  }
}

/** Throws the NOT_FOUND of what does not exist. Nothing of it is ever deleted, so it holds until the rule is written. */
async function checkSubjects(sql: Transaction, { scope, subject_id, service_id }: RuleKey): Promise<void> {
  if (!(await subjectExists(sql, scope, subject_id))) throw subjectNotFound[scope](subject_id, 'limit.subject_id')
  if (service_id !== '' && !(await subjectExists(sql, 'service', service_id))) {
    throw serviceNotFound(service_id, 'limit.service_id')
  }
}

/** Throws the NOT_FOUND of what is asked about and does not exist; without a scope, a subject may be of any. */
async function checkFilter(sql: Sql, { scope, subjectId, serviceId }: LimitFilter): Promise<void> {
  if (subjectId !== '') {
    const scopes = scope === undefined ? subjectScopes : [scope]
    const isThere = await Promise.all(scopes.map((each) => subjectExists(sql, each, subjectId)))
    if (!isThere.includes(true)) throw subjectNotFound[scope ?? 'any'](subjectId, 'subject_id')
  }
  if (serviceId !== '' && !(await subjectExists(sql, 'service', serviceId))) {
    throw serviceNotFound(serviceId, 'service_id')
  }
}

const subjectScopes = ['organization', 'consumer', 'key', 'service'] as const satisfies readonly LimitScope[]

const subjectNotFound: Readonly<Record<LimitScope | 'any', (id: string, field: string) => TollgateError>> = {
  organization: organizationNotFound,
  consumer: consumerNotFound,
  key: keyNotFound,
  service: serviceNotFound,
  service_consumer: serviceNotFound,
  any: limitedNotFound,
}

function isSame(before: LimitRow, { amount, burst, currency }: Omit<LimitRow, 'updated_at'>): boolean {
  return before.amount === amount && before.burst === burst && before.currency === currency
}

function limitNotFound({ scope, subject_id, service_id, name }: RuleKey): TollgateError {
  const where = service_id === '' ? '' : ` for service ${service_id}`
  return new TollgateError('LIMIT_NOT_FOUND', `There is no limit ${name} of ${scope} ${subject_id}${where}.`, {
    metadata: { scope, subjectId: subject_id, serviceId: service_id, name },
  })
}

function parseLimitsToken(token: string): RuleKey | undefined {
  const [scope = '', subject_id = '', service_id = '', name = ''] =
    parsePageToken(token, 4, (part, index) => (index === 0 ? isScope(part) : index === 3 ? isName(part) : true)) ?? []
  return isScope(scope) && isName(name) ? { scope, subject_id, service_id, name } : undefined
}
