import type { Condition, Verdict } from './cel/compile.ts'
import type { CallFacts, ConsumerFacts, OrganizationFacts, ServiceFacts } from './facts.ts'

/** Variables whose values are those of one call. */
const passing: readonly string[] = ['request', 'address', 'time']

/** Verdicts remembered; beyond it all are forgotten, and those in use are soon there again. */
const maxVerdicts = 100_000

type Known = {
  readonly organization: OrganizationFacts
  readonly verdict: Verdict
}

let verdicts = new WeakMap<Condition, WeakMap<ConsumerFacts, WeakMap<ServiceFacts, Known>>>()
let count = 0

/**
 * The verdict of a condition about a call. One that looks at consumer, organization and service only is evaluated once for all
 * of their calls: facts never change, and are made anew when the registry does.
 */
export function verdictOf(
  condition: Condition,
  { consumer, organization, service }: CallFacts,
  budget: number,
  evaluate: () => Verdict,
): Verdict {
  if (passing.some((name) => condition.names.has(name))) return evaluate()
  const known = verdicts.get(condition)?.get(consumer)?.get(service)
  if (known !== undefined && known.organization === organization && known.verdict.cost <= budget) return known.verdict
  const verdict = evaluate()
  if (verdict.kind === 'value') remember(condition, consumer, service, { organization, verdict })
  return verdict
}

function remember(condition: Condition, consumer: ConsumerFacts, service: ServiceFacts, known: Known): void {
  if (count >= maxVerdicts) {
    verdicts = new WeakMap()
    count = 0
  }
  count += 1
  const ofCondition = verdicts.get(condition) ?? new WeakMap<ConsumerFacts, WeakMap<ServiceFacts, Known>>()
  const ofConsumer = ofCondition.get(consumer) ?? new WeakMap<ServiceFacts, Known>()
  verdicts.set(condition, ofCondition.set(consumer, ofConsumer.set(service, known)))
}
