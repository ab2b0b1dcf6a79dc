import type { Bindings, Condition, Verdict } from './cel/compile.ts'
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

/** What the rules of one call are asked about; the values of variables are made for the first condition that needs them. */
class CallSubject implements Subject {
  readonly facts: CallFacts
  cost = 0
  readonly #payload: Uint8Array | undefined
  readonly #limits: Limits
  #content: Content | undefined
  #text: string | undefined
  #bindings: Bindings | undefined

  constructor(facts: CallFacts, payload: Uint8Array | undefined, limits: Limits) {
    this.facts = facts
    this.#payload = payload
    this.#limits = limits
  }

  content(): Content | undefined {
    if (this.#payload === undefined) return undefined
    this.#content ??= contentOf(this.#payload)
    if (this.#content.length > this.#limits.scanned) {
      throw new EvaluationError(`the request has more than ${this.#limits.scanned} characters of text`, true)
    }
    return this.#content
  }

  next(): void {
    this.cost = 0
  }

  holds(condition: Condition): boolean {
    const budget = this.#limits.cost - this.cost
    const verdict = verdictOf(condition, this.facts, budget, () => this.#evaluate(condition, budget))
    this.cost += verdict.cost
    if (verdict.kind === 'value') return verdict.value
    throw new EvaluationError(`its condition ${verdict.error}`, verdict.isCost)
  }

  #evaluate(condition: Condition, budget: number): Verdict {
    this.#bindings ??= bindingsOf(this.facts, () => this.#said())
    return condition.evaluate(this.#bindings, budget)
  }

  #said(): string {
    try {
      const content = this.content()
      this.#text ??= content === undefined ? '' : textOf(content)
      return this.#text
    } catch (error) {
      throw error instanceof EvaluationError ? new CostExceeded(error.message) : error
    }
  }
}

export function subjectOf(facts: CallFacts, payload: Uint8Array | undefined, limits: Limits): Subject {
  return new CallSubject(facts, payload, limits)
}
