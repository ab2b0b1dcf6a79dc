import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate, timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt'
import {
  PolicyMode,
  type PolicySchema,
  type PolicyVersionSchema,
  type RecordedViolationSchema,
} from '../../gen/marketplace/v1/policies_pb.ts'
import {
  type CallFacts as CallFactsMessage,
  type CallFactsSchema,
  type PolicyDecision,
  PolicyOutcome,
  PolicySeverity,
  type ServiceFacts as ServiceFactsMessage,
  type ServiceFactsSchema,
} from '../../gen/marketplace/v1/policy_pb.ts'
import type { Decision, Outcome, Severity } from './decision.ts'
import { type CallFacts, noRequest, type ServiceFacts } from './facts.ts'
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

/** What a decision in the contract says. */
export function decisionOf({ allowed, reason, violations, marks, redactedPayload }: PolicyDecision): Decision {
  return {
    allowed,
    reason,
    violations: violations.map((violation) => ({
      policyId: violation.policyId,
      policyName: violation.policyName,
      policyVersion: Number(violation.policyVersion),
      severity: violation.severity === 'warning' ? 'warning' : 'critical',
      message: violation.message,
      outcome: decidedOutcomes[violation.outcome] ?? (allowed ? 'audited' : 'denied'),
    })),
    marks,
    ...(redactedPayload === undefined ? {} : { payload: redactedPayload }),
  }
}

/** Undefined for what no decision says, and for what an older engine leaves out. */
const decidedOutcomes: Readonly<Record<number, Outcome>> = {
  [PolicyOutcome.DENIED]: 'denied',
  [PolicyOutcome.REDACTED]: 'redacted',
  [PolicyOutcome.MARKED]: 'marked',
  [PolicyOutcome.AUDITED]: 'audited',
}

/** Facts in the contract. */
export function factsMessage(facts: CallFacts): MessageInitShape<typeof CallFactsSchema> {
  const { consumer, organization, request, address, timeMs } = facts
  return {
    consumer,
    organization,
    service: serviceFactsMessage(facts.service),
    request: {
      ...request,
      size: BigInt(request.size),
      inputTokens: BigInt(request.inputTokens),
      maxOutputTokens: BigInt(request.maxOutputTokens),
      costNanos: BigInt(request.costNanos),
    },
    address,
    time: timestampFromMs(timeMs),
  }
}

export function serviceFactsMessage(facts: ServiceFacts): MessageInitShape<typeof ServiceFactsSchema> {
  const { regions, certifications, tags } = facts
  return { ...facts, regions: [...regions], certifications: [...certifications], tags: [...tags] }
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
    service: statedService(service),
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

/** What somebody states of a service; what is left out is empty. */
export function statedService(service: ServiceFactsMessage | undefined): ServiceFacts {
  return {
    id: service?.id ?? '',
    name: service?.name ?? '',
    version: service?.version ?? '',
    status: service?.status ?? '',
    classification: service?.classification ?? '',
    regions: service?.regions ?? [],
    certifications: service?.certifications ?? [],
    tags: service?.tags ?? [],
    labels: service?.labels ?? {},
  }
}
