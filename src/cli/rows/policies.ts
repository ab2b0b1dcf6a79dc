import { PolicyService } from '../../../gen/marketplace/v1/policies_pb.ts'
import { PolicyEngine } from '../../../gen/marketplace/v1/policy_pb.ts'
import type { CommandRow } from '../command-row.ts'

const policies = PolicyService.method
const engine = PolicyEngine.method

/** What is allowed. */
export const policyRows: readonly CommandRow[] = [
  {
    name: 'policies create',
    summary: 'add a policy with its first version, from --file; it is not in force before it is activated',
    method: policies.createPolicy,
    resource: 'policy',
    positional: ['policy.name'],
  },
  { name: 'policies get', summary: 'show a policy', method: policies.getPolicy, positional: ['policy_id'] },
  {
    name: 'policies list',
    summary: 'list policies',
    method: policies.listPolicies,
    rows: { field: 'policies', columns: ['id', 'name', 'mode', 'activeVersion', 'latestVersion'] },
  },
  {
    name: 'policies add-version',
    summary: 'add a version to a policy, from --file',
    method: policies.createPolicyVersion,
    positional: ['policy_id'],
  },
  {
    name: 'policies versions',
    summary: 'list the versions of a policy',
    method: policies.listPolicyVersions,
    positional: ['policy_id'],
    rows: { field: 'versions', columns: ['version', 'comment', 'createTime', 'createdBy'] },
  },
  {
    name: 'policies activate',
    summary: 'put a version of a policy in force',
    method: policies.activatePolicy,
    positional: ['policy_id'],
  },
  {
    name: 'policies rollback',
    summary: 'put an earlier version of a policy in force',
    method: policies.rollbackPolicy,
    positional: ['policy_id'],
  },
  {
    name: 'policies disable',
    summary: 'put a policy out of force',
    method: policies.disablePolicy,
    positional: ['policy_id'],
    warning: 'Calls are no longer held to this policy.',
  },
  { name: 'policies test', summary: 'evaluate a policy on facts, both from --file', method: policies.testPolicy },
  {
    name: 'policies dry-run',
    summary: 'show which calls a rule, from --file, would decide otherwise: a new one, or a version of a policy',
    method: policies.dryRunPolicy,
  },
  {
    name: 'policies violations',
    summary: 'list violations, the newest first',
    method: policies.listPolicyViolations,
    rows: {
      field: 'violations',
      columns: ['time', 'policyName', 'severity', 'outcome', 'consumerId', 'serviceId', 'message'],
    },
  },
  {
    name: 'policies check-access',
    summary: 'say whether a consumer may use a service',
    method: engine.checkAccess,
    positional: ['service_id'],
  },
  {
    name: 'policies check-residency',
    summary: "say whether a consumer's data may go where a service works",
    method: engine.verifyDataResidency,
    positional: ['service_id'],
  },
  {
    name: 'policies check-service',
    summary: 'say whether a service is as policies demand',
    method: engine.validateService,
    positional: ['service_id'],
  },
]
