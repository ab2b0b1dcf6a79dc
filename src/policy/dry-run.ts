/** What another rule would have made of recorded calls: a function of the records, without I/O. */
import type { CompiledRule } from './compile-policy.ts'
import type { RecordedDecision } from './decision-store.ts'
import { EvaluationError, type Limits, subjectOf } from './subject.ts'

export interface DryRun {
  readonly examined: number
  readonly newlyDenied: number
  readonly newlyAllowed: number
  /** Calls about which the rule cannot be evaluated. */
  readonly undecided: number
  /** At most `maxDifferences`, in the order of the records. */
  readonly differences: readonly Difference[]
}

export interface Difference {
  readonly decision: RecordedDecision
  readonly wouldBeAllowed: boolean
  /** What the rule says; empty when it allows. */
  readonly reason: string
}

export const maxDifferences = 100

/** Each may use its whole budget, which is about 10 ms. */
const callsBetweenPauses = 5

/**
 * Compares what was decided with what would have been if `rule` had stood in the place of policy `policyId` (empty: beside
 * all others). What other policies decided stays as it was. Rules that need a payload are undecided about every call that
 * they are about, since none is recorded.
 *
 * @param pause awaited now and then, so that a rule that uses up its budget for each call holds nobody up; what it throws
 *   ends the run.
 */
export async function dryRun(
  decisions: readonly RecordedDecision[],
  rule: CompiledRule,
  policyId: string,
  limits: Limits,
  pause: () => Promise<void>,
): Promise<DryRun> {
  let newlyDenied = 0
  let newlyAllowed = 0
  let undecided = 0
  const differences: Difference[] = []
  for (const [index, decision] of decisions.entries()) {
    if (index % callsBetweenPauses === 0) await pause()
    const breach = judge(decision, rule, limits)
    if (breach === 'undecided') {
      undecided += 1
      continue
    }
    const isDeniedByOthers = decision.deniedBy.some((id) => id !== policyId)
    const wouldBeAllowed = !isDeniedByOthers && breach === undefined
    if (wouldBeAllowed === decision.allowed) continue
    if (wouldBeAllowed) newlyAllowed += 1
    else newlyDenied += 1
    if (differences.length < maxDifferences) differences.push({ decision, wouldBeAllowed, reason: breach ?? '' })
  }
  return { examined: decisions.length, newlyDenied, newlyAllowed, undecided, differences }
}

/** Why the rule denies a call; undefined when it does not. */
function judge({ facts }: RecordedDecision, rule: CompiledRule, limits: Limits): string | undefined | 'undecided' {
  // A rule about services decides about no call.
  if (rule.target === 'services') return undefined
  if (rule.readsText) return 'undecided'
  const subject = subjectOf(facts, undefined, limits)
  try {
    if (!rule.applies(subject)) return undefined
    if (rule.kind === 'content') return 'undecided'
    return rule.judge(subject)?.message
  } catch (error) {
    if (error instanceof EvaluationError) return 'undecided'
    throw error
  }
}
