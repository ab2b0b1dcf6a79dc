import { type CompiledRule, compileRule } from './compile-policy.ts'
import { type ActivePolicy, decide, type FailMode, type PolicyFailure } from './decide.ts'
import { allowed, type Decision } from './decision.ts'
import type { CallFacts } from './facts.ts'
import type { PolicyRecord } from './policy-record.ts'
import { type Limits, subjectOf } from './subject.ts'

/** What is asked: may this call be made, may this data go there, is this service as it must be. */
export type Question = 'call' | 'residency' | 'service'

/** Asks the policies in force. It knows no consumers and no services but by facts. */
export interface Judge {
  /** False while it would allow every call, so that nobody need work out what to ask about. */
  decidesCalls(): boolean
  /** @param payload what a call sends; undefined when nobody said. */
  judge(question: Question, facts: CallFacts, payload?: Uint8Array): Decision | Promise<Decision>
}

export interface LocalJudgeOptions {
  /** Policies in force, in any order; the same array as long as nothing changed. */
  readonly policies: () => readonly PolicyRecord[]
  /** What a policy that cannot be evaluated does to a call. */
  readonly failMode: FailMode
  readonly limits: Limits
  /** Told of policies that could not be evaluated; must not throw or wait. */
  readonly onFailure?: (failure: PolicyFailure) => void
}

/** Default ceilings of an evaluation. */
export const defaultLimits: Limits = { cost: 100_000, scanned: 262_144 }

/** The judge that evaluates policies in memory, and answers at once. Rules are compiled once a version. */
export function createLocalJudge(options: LocalJudgeOptions): Judge {
  const { failMode, limits, onFailure } = options
  let seen: readonly PolicyRecord[] = []
  let active = activeSet([], new Map())

  function current(): ActiveSet {
    const policies = options.policies()
    if (policies !== seen) {
      active = activeSet(policies, active.rules)
      seen = policies
    }
    return active
  }

  return {
    decidesCalls: () => current().call.length > 0,
    judge(question, facts, payload) {
      const policies = current()[question]
      if (policies.length === 0) return allowed
      return decide(policies, subjectOf(facts, payload, limits), failMode, onFailure)
    },
  }
}

/** The policies in force by what they are asked about, in the order in which they are asked. */
interface ActiveSet extends Readonly<Record<Question, readonly ActivePolicy[]>> {
  /** Compiled rules by policy and version, which never change; undefined for one that cannot be compiled. */
  readonly rules: ReadonlyMap<string, CompiledRule | undefined>
}

function activeSet(policies: readonly PolicyRecord[], known: ActiveSet['rules']): ActiveSet {
  const rules = new Map<string, CompiledRule | undefined>()
  const active = policies.toSorted(byPriority).map((record) => {
    const key = `${record.id}/${record.version}`
    const rule = known.has(key) ? known.get(key) : compiled(record)
    rules.set(key, rule)
    return { record, rule }
  })
  // One that cannot be read may be about calls.
  const call = active.filter(({ rule }) => rule?.target !== 'services')
  return {
    call,
    residency: call.filter(({ rule }) => rule?.kind === 'dataResidency'),
    service: active.filter(({ rule }) => rule?.target === 'services'),
    rules,
  }
}

function byPriority(a: PolicyRecord, b: PolicyRecord): number {
  return a.spec.priority - b.spec.priority || (a.name < b.name ? -1 : 1)
}

/** What was stored was compiled before; only another release can fail here. */
function compiled({ spec }: PolicyRecord): CompiledRule | undefined {
  try {
    return compileRule(spec)
  } catch {
    return undefined
  }
}
