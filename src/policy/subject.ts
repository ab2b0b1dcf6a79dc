import type { Condition } from './cel/compile.ts'
import { CostExceeded } from './cel/meter.ts'
import { type Content, contentOf, textOf } from './content/content.ts'
import type { Replacement } from './content/texts.ts'
import type { CallFacts } from './facts.ts'
import { verdictOf } from './lasting-verdicts.ts'
import { bindingsOf } from './variables.ts'

/** How a rule is broken, and what that asks for. */
export interface Breach {
  readonly action: 'deny' | 'redact' | 'mark'
  /** What was broken, without anything that was sent. */
  readonly message: string
  /** What was found, of content. */
  readonly marks: readonly string[]
  readonly replacements: readonly Replacement[]
}

/** An expression failed, used up its budget, or a payload is too large to be looked into. */
export class EvaluationError extends Error {
  override readonly name = 'EvaluationError'
  readonly isCost: boolean

  constructor(message: string, isCost: boolean) {
    super(message)
    this.isCost = isCost
  }
}

export interface Limits {
  /** Units that the expressions of one rule may use. */
  readonly cost: number
  /** Characters of text that are looked into. */
  readonly scanned: number
}

/** What rules are asked about. */
export interface Subject {
  readonly facts: CallFacts
  /** Undefined when nobody said what is sent. Throws {@link EvaluationError} for more than may be looked into. */
  content(): Content | undefined
  /** Whether a condition is true. Throws {@link EvaluationError}. */
  holds(condition: Condition): boolean
  /** Units used so far by the conditions of the rule that is asked. */
  readonly cost: number
  /** Gives the next rule its budget. */
  next(): void
}

/** Whether a condition reads what a request says: a field of that name is `request`'s, whatever a macro calls `request`. */
export function readsText({ reads }: Condition): boolean {
  return reads.has('text')
}

export function subjectOf(facts: CallFacts, payload: Uint8Array | undefined, limits: Limits): Subject {
  let read: Content | undefined
  let said: string | undefined
  let cost = 0

  function content(): Content | undefined {
    if (payload === undefined) return undefined
    read ??= contentOf(payload)
    if (read.length > limits.scanned) {
      throw new EvaluationError(`the request has more than ${limits.scanned} characters of text`, true)
    }
    return read
  }

  function text(): string {
    try {
      const known = content()
      said ??= known === undefined ? '' : textOf(known)
      return said
    } catch (error) {
      throw error instanceof EvaluationError ? new CostExceeded(error.message) : error
    }
  }

  const bindings = bindingsOf(facts, text)

  return {
    facts,
    content,
    get cost() {
      return cost
    },
    next() {
      cost = 0
    },
    holds(condition) {
      const budget = limits.cost - cost
      const verdict = verdictOf(condition, facts, budget, () => condition.evaluate(bindings, budget))
      cost += verdict.cost
      if (verdict.kind === 'value') return verdict.value
      throw new EvaluationError(`its condition ${verdict.error}`, verdict.isCost)
    },
  }
}
