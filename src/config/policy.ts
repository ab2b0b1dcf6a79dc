import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** How policies decide, and what is kept of it. */
export const policyVariables = {
  policyFailMode: setting(is.oneOf('closed', 'open'), {
    name: 'POLICY_FAIL_MODE',
    group: 'Access',
    default: 'closed',
    description:
      'What a policy that cannot be evaluated does to a call: `closed` denies it, `open` lets it pass. So it is with an engine elsewhere that does not answer. A policy that cannot be compiled is never stored, in either mode.',
  }),
  policyEngineUrl: optional(is.url('http', 'https', 'grpc', 'grpcs'), {
    name: 'POLICY_ENGINE_URL',
    group: 'Access',
    description:
      'Another Tollgate, or whoever serves marketplace.v1.PolicyEngine over gRPC, that is asked about calls in place of the policies of this one. Grants are still looked at here. See [policy](policy.md#an-engine-elsewhere).',
  }),
  policyEngineCredential: optional(is.secret(16), {
    name: 'POLICY_ENGINE_CREDENTIAL',
    group: 'Access',
    secret: true,
    description: 'Bearer credential for POLICY_ENGINE_URL; of a Tollgate, one that holds policy.check for everything.',
  }),
  policyEngineTimeoutMs: setting(is.integer(1, 10_000), {
    name: 'POLICY_ENGINE_TIMEOUT_MS',
    group: 'Access',
    default: 100,
    unit: 'milliseconds',
    description: 'Longest wait for an answer of POLICY_ENGINE_URL, for one call.',
  }),
  policyEngineConnections: setting(is.integer(1, 50), {
    name: 'POLICY_ENGINE_CONNECTIONS',
    group: 'Access',
    default: 4,
    description: 'Connections to POLICY_ENGINE_URL, which calls take in turn.',
  }),
  policyCostLimit: setting(is.integer(1_000, 10_000_000), {
    name: 'POLICY_COST_LIMIT',
    group: 'Access',
    default: 100_000,
    description:
      'Cost units that the expressions of one policy may use for one call, of about 100 ns each; with more the policy counts as one that cannot be evaluated.',
  }),
  policyScanLimit: setting(is.integer(1_024, 67_108_864), {
    name: 'POLICY_SCAN_LIMIT',
    group: 'Access',
    default: 262_144,
    description:
      'Characters of text that policies look into, for one call; with more, a policy of content counts as one that cannot be evaluated.',
  }),
  policyDecisionsPerSecond: setting(is.integer(0, 1_000), {
    name: 'POLICY_DECISIONS_PER_SECOND',
    group: 'Access',
    default: 10,
    description:
      'Calls a second, of each replica, of which the facts are kept for dry runs of policies; 0 keeps none. What was sent is never kept.',
  }),
  policyDecisionDays: setting(is.integer(1, 365), {
    name: 'POLICY_DECISION_DAYS',
    group: 'Access',
    default: 7,
    description: 'Days that those facts are kept.',
  }),
  policyViolationDays: setting(is.integer(0, 3_650), {
    name: 'POLICY_VIOLATION_DAYS',
    group: 'Access',
    default: 90,
    description: 'Days that violations of policies are kept; 0 keeps them for ever.',
  }),
} as const

/** Who decides about calls, within which ceilings. */
export interface PolicySettings {
  /** What a policy that cannot be evaluated does to a call. */
  readonly failMode: 'closed' | 'open'
  /** Ceilings of one evaluation: cost units, characters of text. */
  readonly limits: { readonly cost: number; readonly scanned: number }
  /** Undefined: the policies of this process decide. */
  readonly engine:
    | {
        /** http or https. */
        readonly url: string
        readonly credential: string | undefined
        readonly timeoutMs: number
        readonly connections: number
      }
    | undefined
  readonly decisionsPerSecond: number
  readonly decisionDays: number
  /** 0: for ever. */
  readonly violationDays: number
}

export function readPolicy(from: SettingsReader): PolicySettings {
  return {
    failMode: from.read(policyVariables.policyFailMode),
    engine: readEngine(from),
    limits: {
      cost: from.read(policyVariables.policyCostLimit),
      scanned: from.read(policyVariables.policyScanLimit),
    },
    decisionsPerSecond: from.read(policyVariables.policyDecisionsPerSecond),
    decisionDays: from.read(policyVariables.policyDecisionDays),
    violationDays: from.read(policyVariables.policyViolationDays),
  }
}

function readEngine(from: SettingsReader): PolicySettings['engine'] {
  const url = from.read(policyVariables.policyEngineUrl)
  if (url === undefined) return undefined
  return {
    url: url.replace(/^grpc/, 'http'),
    credential: from.read(policyVariables.policyEngineCredential),
    timeoutMs: from.read(policyVariables.policyEngineTimeoutMs),
    connections: from.read(policyVariables.policyEngineConnections),
  }
}
