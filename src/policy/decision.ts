/** What an engine answers. */
export interface Decision {
  readonly allowed: boolean
  /** Why not, for the caller; empty when allowed. */
  readonly reason: string
  /** Every rule that was broken; some may stand beside `allowed: true`. */
  readonly violations: readonly PolicyViolation[]
  /** Names of what was found and let pass. */
  readonly marks: readonly string[]
  /** What is sent in place of the payload; undefined: the payload itself. */
  readonly payload?: Uint8Array | undefined
}

export interface PolicyViolation {
  /** Built-in rules begin with "builtin/". */
  readonly policyId: string
  /** Empty for built-in rules. */
  readonly policyName: string
  /** 0 for built-in rules. */
  readonly policyVersion: number
  readonly severity: Severity
  /** What was broken, and what would mend it. Never anything that was sent. */
  readonly message: string
  readonly outcome: Outcome
}

export type Severity = 'warning' | 'critical'

/** What is done about a violation; "audited" is nothing. */
export type Outcome = 'denied' | 'redacted' | 'marked' | 'audited'

export const allowed: Decision = Object.freeze({
  allowed: true,
  reason: '',
  violations: Object.freeze([]),
  marks: Object.freeze([]),
})

/** The violation of a rule that is built in. */
export function builtinViolation(name: string, message: string): PolicyViolation {
  return {
    policyId: `builtin/${name}`,
    policyName: '',
    policyVersion: 0,
    severity: 'critical',
    message,
    outcome: 'denied',
  }
}

/** A denial; the first violation that denies says why. */
export function denied(violations: readonly PolicyViolation[]): Decision {
  const reason = violations.find(({ outcome }) => outcome === 'denied')?.message ?? ''
  return { allowed: false, reason, violations, marks: [] }
}
