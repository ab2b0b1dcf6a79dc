import type { Condition, Verdict } from './cel/compile.ts'
import type { CallFacts, ConsumerFacts, OrganizationFacts, ServiceFacts } from './facts.ts'

/** Variables whose values are those of one call. */
const passing: ReadonlySet<string> = new Set(['request', 'address', 'time'])

/** What a condition looks at of one call; of most calls, those of the OpenAI API among them, there is no metadata. */
type Passing = 'nothing' | 'metadata' | 'more'

const passings = new WeakMap<Condition, Passing>()

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
 * of their calls: facts never change, and are made anew when the registry does. One that looks at metadata, too, is evaluated
 * once for all of their calls without any.
 */
export function verdictOf(
  condition: Condition,
  { consumer, organization, service, request }: CallFacts,
  budget: number,
  evaluate: () => Verdict,
): Verdict {
  const looksAt = passingOf(condition)
  if (looksAt === 'more' || (looksAt === 'metadata' && Object.keys(request.metadata).length > 0)) return evaluate()
  const known = verdicts.get(condition)?.get(consumer)?.get(service)
  if (known !== undefined && known.organization === organization && known.verdict.cost <= budget) return known.verdict
  const verdict = evaluate()
  if (verdict.kind === 'value') remember(condition, consumer, service, { organization, verdict })
  return verdict
}

function passingOf(condition: Condition): Passing {
  const known = passings.get(condition)
  if (known !== undefined) return known
  const names = [...condition.looksAt].filter((name) => passing.has(name.split('.')[0] ?? ''))
  const isMetadata = names.every((name) => name === 'request.metadata')
  const found = names.length === 0 ? 'nothing' : isMetadata ? 'metadata' : 'more'
  passings.set(condition, found)
  return found
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
