/**
 * From what each policy says to one decision.
 *
 * A denial overrides everything; else what is to be taken out is taken out; else the call is only marked. All policies are
 * asked, so that all violations are known, and the order in which they are asked changes their order in the answer only.
 */
import { PolicySeverity } from '../../gen/marketplace/v1/policy_pb.ts'
import type { CompiledRule } from './compile-policy.ts'
import { type Replacement, replaced } from './content/texts.ts'
import { allowed, type Decision, denied, type Outcome, type PolicyViolation } from './decision.ts'
import type { PolicyRecord } from './policy-record.ts'
import { type Breach, EvaluationError, type Subject } from './subject.ts'

/** What a policy that cannot be evaluated does to a call: nothing, or deny it. */
export type FailMode = 'open' | 'closed'

export interface ActivePolicy {
  readonly record: PolicyRecord
  /** Undefined when this process cannot read the rule. */
  readonly rule: CompiledRule | undefined
}

/** A policy that could not be evaluated. */
export interface PolicyFailure {
  readonly policy: PolicyRecord
  /** What was wrong; names no value. */
  readonly message: string
  /** Whether it was stopped, and not wrong. */
  readonly isCost: boolean
}

/** @param onFailure told of each policy that could not be evaluated. */
export function decide(
  policies: readonly ActivePolicy[],
  subject: Subject,
  failMode: FailMode,
  onFailure: (failure: PolicyFailure) => void = () => {},
): Decision {
  const violations: PolicyViolation[] = []
  const replacements: Replacement[] = []
  const marks = new Set<string>()
  for (const { record, rule } of policies) {
    const breach = breachOf(record, rule, subject, failMode, onFailure)
    if (breach === undefined) continue
    const outcome = record.mode === 'enforce' ? outcomes[breach.action] : 'audited'
    violations.push(violationOf(record, breach, outcome))
    if (outcome === 'redacted') replacements.push(...breach.replacements)
    if (outcome === 'marked') for (const mark of breach.marks) marks.add(mark)
  }
  if (violations.length === 0) return allowed
  if (violations.some(({ outcome }) => outcome === 'denied')) return denied(violations)
  const source = replacements.length === 0 ? undefined : subject.content()?.texts.source
  return {
    allowed: true,
    reason: '',
    violations,
    marks: [...marks],
    ...(source === undefined ? {} : { payload: replaced(source, replacements) }),
  }
}

const outcomes: Readonly<Record<Breach['action'], Outcome>> = { deny: 'denied', redact: 'redacted', mark: 'marked' }

function breachOf(
  policy: PolicyRecord,
  rule: CompiledRule | undefined,
  subject: Subject,
  failMode: FailMode,
  onFailure: (failure: PolicyFailure) => void,
): Breach | undefined {
  subject.next()
  try {
    if (rule === undefined) throw new EvaluationError('its rule is of a newer release', false)
    return rule.applies(subject) ? rule.judge(subject) : undefined
  } catch (error) {
    if (!(error instanceof EvaluationError)) throw error
    onFailure({ policy, message: error.message, isCost: error.isCost })
    if (failMode === 'open') return undefined
    const message = `Policy ${policy.name} could not be evaluated: ${error.message}.`
    return { action: 'deny', message, marks: [], replacements: [] }
  }
}

function violationOf({ id, name, version, spec }: PolicyRecord, breach: Breach, outcome: Outcome): PolicyViolation {
  return {
    policyId: id,
    policyName: name,
    policyVersion: version,
    severity: spec.severity === PolicySeverity.WARNING ? 'warning' : 'critical',
    message: spec.message === '' ? breach.message : spec.message,
    outcome,
  }
}
