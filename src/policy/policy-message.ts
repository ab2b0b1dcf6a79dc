import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate, timestampMs } from '@bufbuild/protobuf/wkt'
import {
  PolicyMode,
  type PolicySchema,
  type PolicyVersionSchema,
  type RecordedViolationSchema,
} from '../../gen/marketplace/v1/policies_pb.ts'
import {
  type CallFacts as CallFactsMessage,
  PolicyOutcome,
  PolicySeverity,
} from '../../gen/marketplace/v1/policy_pb.ts'
import type { Severity } from './decision.ts'
import { type CallFacts, noRequest } from './facts.ts'
import { type PolicyRow, type PolicyVersionRow, storedSpec } from './policy-store.ts'
import type { RecordedOutcome, ViolationRow } from './violation-store.ts'

export function policyMessage(row: PolicyRow): MessageInitShape<typeof PolicySchema> {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    mode: modes[row.mode],
    activeVersion: BigInt(row.active_version ?? 0),
    latestVersion: BigInt(row.latest_version),
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  }
}

export function versionMessage(row: PolicyVersionRow): MessageInitShape<typeof PolicyVersionSchema> {
  return {
    policyId: row.policy_id,
    version: BigInt(row.version),
    spec: storedSpec(row.spec),
    comment: row.comment,
    createTime: timestampFromDate(row.created_at),
    createdBy: row.created_by,
  }
}

export function violationMessage(row: ViolationRow): MessageInitShape<typeof RecordedViolationSchema> {
  return {
    id: row.id,
    time: timestampFromDate(row.created_at),
    policyId: row.policy_id,
    policyName: row.policy_name,
    policyVersion: BigInt(row.policy_version),
    severity: severities[row.severity],
    outcome: outcomeMessage(row.outcome),
    message: row.message,
    requestId: row.request_id,
    organizationId: row.organization_id,
    consumerId: row.consumer_id,
    serviceId: row.service_id,
    reportedBy: row.reported_by,
  }
}

const modes: Readonly<Record<PolicyRow['mode'], PolicyMode>> = {
  disabled: PolicyMode.DISABLED,
  enforce: PolicyMode.ENFORCE,
  audit_only: PolicyMode.AUDIT_ONLY,
}

const severities: Readonly<Record<Severity, PolicySeverity>> = {
  warning: PolicySeverity.WARNING,
  critical: PolicySeverity.CRITICAL,
}

/** Undefined for every severity. */
export function severityOf(message: PolicySeverity): Severity | undefined {
  if (message === PolicySeverity.UNSPECIFIED) return undefined
  return message === PolicySeverity.WARNING ? 'warning' : 'critical'
}

const outcomes: Readonly<Record<RecordedOutcome, PolicyOutcome>> = {
  denied: PolicyOutcome.DENIED,
  redacted: PolicyOutcome.REDACTED,
  marked: PolicyOutcome.MARKED,
  audited: PolicyOutcome.AUDITED,
  reported: PolicyOutcome.REPORTED,
}

export function outcomeMessage(outcome: RecordedOutcome): PolicyOutcome {
  return outcomes[outcome]
}

/** Facts that somebody states; what is left out is empty. */
export function statedFacts(message: CallFactsMessage | undefined, nowMs: number): CallFacts {
  const { consumer, organization, service, request } = message ?? {}
  return {
    consumer: {
      id: consumer?.id ?? '',
      projectId: consumer?.projectId ?? '',
      name: consumer?.name ?? '',
      tier: consumer?.tier ?? '',
      status: consumer?.status ?? '',
      clearance: consumer?.clearance ?? '',
      homeRegion: consumer?.homeRegion ?? '',
    },
    organization: { id: organization?.id ?? '' },
    service: {
      id: service?.id ?? '',
      name: service?.name ?? '',
      version: service?.version ?? '',
      status: service?.status ?? '',
      classification: service?.classification ?? '',
      regions: service?.regions ?? [],
      certifications: service?.certifications ?? [],
      tags: service?.tags ?? [],
      labels: service?.labels ?? {},
    },
    request:
      request === undefined
        ? noRequest
        : {
            model: request.model,
            kind: request.kind,
            stream: request.stream,
            size: Number(request.size),
            inputTokens: Number(request.inputTokens),
            maxOutputTokens: Number(request.maxOutputTokens),
            costNanos: Number(request.costNanos),
            currency: request.currency,
            metadata: request.metadata,
            keyId: request.keyId,
            userAgent: request.userAgent,
          },
    address: message?.address ?? '',
    timeMs: message?.time === undefined ? nowMs : timestampMs(message.time),
  }
}
