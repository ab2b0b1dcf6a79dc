import type { LimitsReading } from '../limits/limits-reading.ts'
import type { LedgerQuestion, LedgerReading } from '../metering/ledger-audit.ts'
import type { BackendCalls } from './backend-calls.ts'
import type { Books } from './books.ts'

/** The stores of a deployment, for reading. */
export interface BookStores {
  limits(): Promise<LimitsReading>
  ledger(question: LedgerQuestion): Promise<LedgerReading>
}

export interface BooksQuestion {
  /** UTC month "YYYY-MM"; undefined for all. */
  readonly month: string | undefined
  /** Read before this is called; undefined when there are no logs of backends. */
  readonly backends: BackendCalls | undefined
}

/** Limits first, the ledger last: the order in which a call moves, so that it is seen at least once. */
export async function readBooks(stores: BookStores, { month, backends }: BooksQuestion): Promise<Books> {
  const limits = await stores.limits()
  const ids = new Set(backends?.keys())
  for (const { event } of limits.events) ids.add(event.id)
  const ledger = await stores.ledger({ month, ids, wantsAttempts: backends !== undefined })
  return { month, limits, ledger, backends }
}
