import { setImmediate as turn } from 'node:timers/promises'
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt'
import {
  PolicyMode,
  PolicySchema,
  type PolicyService,
  PolicyVersionSchema,
} from '../../gen/marketplace/v1/policies_pb.ts'
import type { PolicySpec } from '../../gen/marketplace/v1/policy_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import type { ChangeOf } from '../control/change-types.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import { TollgateError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { pageOf, pageSizeOf, parsePageToken } from '../page-token.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import { alreadyExists, storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { compileRule } from './compile-policy.ts'
import { decide, type FailMode } from './decide.ts'
import { selectDecisions } from './decision-store.ts'
import { dryRun, maxDifferences } from './dry-run.ts'
import { policyMessage, severityOf, statedFacts, versionMessage, violationMessage } from './policy-message.ts'
import { decisionMessage } from './policy-service.ts'
import {
  insertPolicy,
  insertVersion,
  lockPolicy,
  type PolicyRow,
  selectPolicies,
  selectPolicy,
  selectVersion,
  selectVersions,
  updateActive,
  versionBefore,
} from './policy-store.ts'
import { type Limits, subjectOf } from './subject.ts'
import { selectViolations } from './violation-store.ts'

export interface PolicyAdminOptions {
  readonly sql: Sql
  /** A write answers only after this process's snapshot holds it. */
  readonly snapshots: Pick<SnapshotSource, 'refresh'>
  /** UUIDv7, lower case. */
  readonly newId: () => string
  /** As of the engine. */
  readonly failMode: FailMode
  readonly limits: Limits
  /** Unix milliseconds. */
  readonly now: () => number
}

/** marketplace.v1.PolicyService on Postgres. What cannot be compiled is not stored: POLICY_FAIL_MODE is for calls only. */
export function createPolicyAdminService(options: PolicyAdminOptions): Handlers<typeof PolicyService.method> {
  const { sql, snapshots, newId, failMode, limits, now } = options

  /** Changes a policy that exists, in a transaction with its trail. */
  async function change(
    idOrName: string,
    call: Call,
    type: ChangeOf<'policy'>,
    work: (tx: Transaction, before: PolicyRow) => Promise<void>,
  ): Promise<PolicyRow> {
    const after = await storing(() =>
      sql.begin(async (tx) => {
        const before = found(await lockPolicy(tx, idOrName), idOrName)
        await work(tx, before)
        const row = found(await selectPolicy(tx, before.id), idOrName)
        await recordChange(tx, actorOf(call), {
          type,
          id: row.id,
          organizationId: '',
          before: resourceJson(PolicySchema, policyMessage(before)),
          after: resourceJson(PolicySchema, policyMessage(row)),
        })
        return row
      }),
    )
    await snapshots.refresh()
    return after
  }

  return {
    async createPolicy({ policy, spec, comment }, call) {
      const { name = '', description = '' } = policy ?? {}
      const rule = checked(spec)
      const row = await storing(
        () =>
          sql.begin(async (tx) => {
            const id = newId()
            await insertPolicy(tx, { id, name, description })
            await insertVersion(tx, id, rule, comment, actorOf(call).subject)
            const created = found(await selectPolicy(tx, id), name)
            const after = resourceJson(PolicySchema, policyMessage(created))
            await recordChange(tx, actorOf(call), { type: 'policy.created', id, organizationId: '', after })
            return created
          }),
        { policies_name_key: () => alreadyExists('policy.name', name) },
      )
      return policyMessage(row)
    },

    async getPolicy({ policyId }) {
      return policyMessage(found(await storing(() => selectPolicy(sql, policyId)), policyId))
    },

    async listPolicies(request) {
      const size = pageSizeOf(request.pageSize)
      const [after = ''] = parsePageToken(request.pageToken, 1, () => true) ?? []
      const page = pageOf(await storing(() => selectPolicies(sql, after, size + 1)), size, ({ name }) => [name])
      return { policies: page.rows.map(policyMessage), nextPageToken: page.nextPageToken }
    },

    async createPolicyVersion({ policyId, spec, comment }, call) {
      const rule = checked(spec)
      const row = await storing(() =>
        sql.begin(async (tx) => {
          const policy = found(await lockPolicy(tx, policyId), policyId)
          const version = await insertVersion(tx, policy.id, rule, comment, actorOf(call).subject)
          const after = resourceJson(PolicyVersionSchema, versionMessage(version))
          const trail = { type: 'policy.version_created', id: policy.id, organizationId: '', after } as const
          await recordChange(tx, actorOf(call), trail)
          return version
        }),
      )
      return versionMessage(row)
    },

    async listPolicyVersions(request) {
      const { id } = found(await storing(() => selectPolicy(sql, request.policyId)), request.policyId)
      const size = pageSizeOf(request.pageSize)
      const [before] = parsePageToken(request.pageToken, 1, (part) => /^\d{1,15}$/.test(part)) ?? []
      const rows = await storing(() =>
        selectVersions(sql, id, before === undefined ? undefined : Number(before), size + 1),
      )
      const page = pageOf(rows, size, ({ version }) => [String(version)])
      return { versions: page.rows.map(versionMessage), nextPageToken: page.nextPageToken }
    },

    async activatePolicy(request, call) {
      const mode = request.mode === PolicyMode.AUDIT_ONLY ? 'audit_only' : 'enforce'
      const row = await change(request.policyId, call, 'policy.activated', async (tx, policy) => {
        const version = request.version === 0n ? policy.latest_version : Number(request.version)
        await existing(tx, policy, version)
        await updateActive(tx, policy.id, mode, version)
      })
      return policyMessage(row)
    },

    async rollbackPolicy(request, call) {
      const row = await change(request.policyId, call, 'policy.rolled_back', async (tx, policy) => {
        const active = policy.active_version ?? 0
        const wanted = Number(request.version)
        const version = wanted === 0 ? await versionBefore(tx, policy.id, active) : wanted
        if (version === undefined || version >= active) throw nothingBefore(policy, wanted)
        await existing(tx, policy, version)
        await updateActive(tx, policy.id, policy.mode, version)
      })
      return policyMessage(row)
    },

    async disablePolicy({ policyId }, call) {
      const row = await change(policyId, call, 'policy.disabled', (tx, policy) =>
        updateActive(tx, policy.id, 'disabled', policy.active_version),
      )
      return policyMessage(row)
    },

    async testPolicy({ spec, facts, payload }) {
      const rule = compileRule(checked(spec))
      const subject = subjectOf(statedFacts(facts, now()), payload, limits)
      let error = ''
      const record = { id: '', name: 'test', version: 0, mode: 'enforce', spec: checked(spec) } as const
      let matched = false
      const watched = {
        ...rule,
        applies: (asked: typeof subject) => {
          matched = rule.applies(asked)
          return matched
        },
      }
      const decision = decide([{ record, rule: watched }], subject, failMode, (failure) => {
        error = failure.message
      })
      return { matched, decision: decisionMessage(decision), cost: BigInt(subject.cost), error }
    },

    async dryRunPolicy({ policyId, spec, maxCalls, beforeTime }, call) {
      const rule = compileRule(checked(spec))
      const replaced = policyId === '' ? '' : found(await storing(() => selectPolicy(sql, policyId)), policyId).id
      const beforeMs = beforeTime && timestampMs(beforeTime)
      const decisions = await storing(() => selectDecisions(sql, beforeMs, maxCalls === 0 ? 1_000 : maxCalls))
      const run = await dryRun(decisions, rule, replaced, limits, async () => {
        await turn()
        call.signal.throwIfAborted()
      })
      const oldest = decisions.at(-1)
      return {
        ...run,
        differences: run.differences.map(({ decision, wouldBeAllowed, reason }) => ({
          requestId: decision.requestId,
          time: timestampFromMs(decision.facts.timeMs),
          consumerId: decision.facts.consumer.id,
          serviceId: decision.facts.service.id,
          wasAllowed: decision.allowed,
          wouldBeAllowed,
          reason,
        })),
        notes: notesOf(rule, run.newlyAllowed + run.newlyDenied),
        ...(oldest === undefined ? {} : { oldestTime: timestampFromMs(oldest.facts.timeMs) }),
      }
    },

    async listPolicyViolations(request) {
      const { policyId, consumerId, serviceId, severity, startTime, endTime } = request
      const size = pageSizeOf(request.pageSize)
      const [before] = parsePageToken(request.pageToken, 1, isUuid) ?? []
      const filter = {
        policyId,
        consumerId,
        serviceId,
        severity: severityOf(severity),
        fromMs: startTime && timestampMs(startTime),
        beforeMs: endTime && timestampMs(endTime),
      }
      const page = pageOf(await storing(() => selectViolations(sql, filter, before, size + 1)), size, ({ id }) => [id])
      return { violations: page.rows.map(violationMessage), nextPageToken: page.nextPageToken }
    },
  }
}

/** A rule that can be compiled. */
function checked(spec: PolicySpec | undefined): PolicySpec {
  if (spec === undefined) throw new TollgateError('INVALID_ARGUMENT', 'spec is required.')
  compileRule(spec)
  return spec
}

function notesOf(rule: ReturnType<typeof compileRule>, changed: number): string[] {
  const notes = ['Only a sample of the calls is recorded, and of no call what it sent.']
  if (rule.target === 'services') notes.push('A policy for services decides about no calls.')
  if (rule.kind === 'content')
    notes.push('Rules of content cannot be tried on recorded calls: try them with TestPolicy.')
  if (rule.readsText) notes.push('The rule reads request.text, which is not recorded.')
  if (changed > maxDifferences) notes.push(`Of ${changed} differences, the newest ${maxDifferences} are shown.`)
  return notes
}

async function existing(tx: Transaction, { id, name }: PolicyRow, version: number): Promise<void> {
  if ((await selectVersion(tx, id, version)) !== undefined) return
  const description = `policy ${name} has no version ${version}`
  throw new TollgateError('INVALID_ARGUMENT', `version: ${description}`, {
    fields: [{ field: 'version', description }],
    metadata: { field: 'version' },
  })
}

function nothingBefore({ name, active_version }: PolicyRow, wanted: number): TollgateError {
  const active = active_version === null ? 'was never in force' : `has version ${active_version} in force`
  const description =
    wanted === 0
      ? `policy ${name} ${active}, and none was before it`
      : `policy ${name} ${active}: ${wanted} is not before it`
  return new TollgateError('INVALID_ARGUMENT', `version: ${description}`, {
    fields: [{ field: 'version', description }],
    metadata: { field: 'version' },
  })
}

function found(row: PolicyRow | undefined, idOrName: string): PolicyRow {
  if (row !== undefined) return row
  throw new TollgateError('POLICY_NOT_FOUND', `There is no policy ${idOrName}.`, { metadata: { policyId: idOrName } })
}
