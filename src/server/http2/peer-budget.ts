import { calmDown } from './error-codes.ts'
import { FrameBudget } from './frame-budget.ts'
import type { Sender } from './sender.ts'

/** How often a peer may do what costs it nothing. To do it more often is ENHANCE_YOUR_CALM, which all here throw. */
export class PeerBudget {
  readonly #sender: Sender
  readonly #resets = new FrameBudget(1000, 100)
  readonly #idle = new FrameBudget(10_000, 1000)

  constructor(sender: Sender) {
    this.#sender = sender
  }

  /** Each stream that ends early may have cost a call. */
  spendReset(): void {
    if (!this.#resets.spend()) throw calmDown('too many streams were reset')
  }

  /** For frames that bring nothing. Some clients measure the way with a PING for each part of an answer: each earns them one. */
  spendIdle(): void {
    this.#idle.earn(this.#sender.uncounted)
    this.#sender.uncounted = 0
    if (!this.#idle.spend()) throw calmDown('too many frames brought nothing')
  }
}
