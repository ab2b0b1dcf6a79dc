/**
 * How many retries a service may cost: a fifth of its calls, and ten a second beside that, so that a service with few
 * calls can be retried at all. When everything fails, the backends get 1.2 times their calls instead of three times.
 *
 * Every call of the last ten seconds is a credit, and a retry costs five: the token bucket of Finagle
 * (https://finagle.github.io/blog/2016/02/08/retry-budgets, the same numbers), which tower and linkerd took over. Envoy's
 * `retry_budget` has the same fifth, of the requests in flight; those of calls to models last so long that few retries
 * would be let pass when a service begins to fail.
 */
export interface RetryBudget {
  /** Counts a call. */
  deposit(serviceId: string): void
  /** Takes a retry; false, and nothing taken, when there is none left. */
  withdraw(serviceId: string): boolean
}

/** Credits and debits expire after so many slices of this length. */
const slices = 10
const sliceMs = 1_000

/** Credits that a retry costs; a call brings one. */
const retryCost = 5

/** Credits that are always there: ten retries a second. */
const reserve = 10 * retryCost * ((slices * sliceMs) / 1_000)

/** The services of a process; beyond this the one that was not called for longest begins anew. */
const maxServices = 10_000

interface Account {
  /** Credits less debits of each slice. */
  readonly balances: number[]
  /** Number of the newest slice, since the epoch. */
  slice: number
}

/** @param now Unix milliseconds. */
export function createRetryBudget(now: () => number): RetryBudget {
  const accounts = new Map<string, Account>()

  function accountOf(serviceId: string): Account {
    const slice = Math.floor(now() / sliceMs)
    const known = accounts.get(serviceId)
    if (known === undefined) {
      const [oldest] = accounts.keys()
      if (accounts.size >= maxServices && oldest !== undefined) accounts.delete(oldest)
    }
    const account = known ?? { balances: Array<number>(slices).fill(0), slice }
    if (known === undefined) accounts.set(serviceId, account)
    for (let expired = Math.max(account.slice, slice - slices) + 1; expired <= slice; expired += 1) {
      account.balances[expired % slices] = 0
    }
    account.slice = Math.max(account.slice, slice)
    return account
  }

  function add(account: Account, credits: number): void {
    const at = account.slice % slices
    account.balances[at] = (account.balances[at] ?? 0) + credits
  }

  return {
    deposit(serviceId) {
      add(accountOf(serviceId), 1)
    },
    withdraw(serviceId) {
      const account = accountOf(serviceId)
      if (reserve + account.balances.reduce((sum, balance) => sum + balance, 0) < retryCost) return false
      add(account, -retryCost)
      return true
    },
  }
}
