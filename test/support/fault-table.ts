/**
 * What becomes of a call whose backend misbehaves: each fault of the practice backend, for whole answers and streams, at the
 * first attempt only and at every attempt, through each protocol. docs/streams.md prints it, and
 * test/stream-faults.server.test.ts walks it.
 */
import { Code } from '@connectrpc/connect'
import { type Reason, reasons } from '../../src/errors.ts'
import { errorTable } from '../../src/server/openai/error-table.ts'

/** What the caller gets, and what the ledger says of it. */
export type FaultOutcome =
  /** All of the answer. Its usage is the backend's own, or `estimated` from what came. */
  | { readonly kind: 'answer'; readonly attempts: 1 | 2; readonly usage: 'reported' | 'estimated' }
  /** An error and nothing else; nothing is charged. */
  | { readonly kind: 'error'; readonly attempts: number; readonly reason: Reason }
  /** Three tokens and then an error; the three are charged. */
  | { readonly kind: 'broken'; readonly attempts: 1; readonly reason: Reason }

export interface FaultRow {
  /** As the practice backend reads it. */
  readonly fault: string
  readonly meaning: string
  readonly whole: FaultCase
  readonly stream: FaultCase
}

/** Outcomes with two endpoints that behave alike. */
export interface FaultCase {
  readonly firstAttempt: FaultOutcome
  readonly everyAttempt: FaultOutcome
}

/** Tokens that come before faults that strike in the middle. */
export const tokensBefore = 3

const answered: FaultOutcome = { kind: 'answer', attempts: 1, usage: 'reported' }
const unnoticed: FaultOutcome = { kind: 'answer', attempts: 2, usage: 'reported' }
const estimated: FaultOutcome = { kind: 'answer', attempts: 1, usage: 'estimated' }
const harmless: FaultCase = { firstAttempt: answered, everyAttempt: answered }
const uncounted: FaultCase = { firstAttempt: estimated, everyAttempt: estimated }

/** Another attempt makes up for it; when all are used up, the caller gets the error. */
function recovered(reason: Reason, attempts: 2 | 3): FaultCase {
  return { firstAttempt: unnoticed, everyAttempt: { kind: 'error', attempts, reason } }
}

/** The request itself is refused: another attempt would be, too. */
function refused(reason: Reason): FaultCase {
  const outcome = { kind: 'error', attempts: 1, reason } as const
  return { firstAttempt: outcome, everyAttempt: outcome }
}

/** Too late for another attempt. */
function broken(reason: Reason): FaultCase {
  const outcome = { kind: 'broken', attempts: 1, reason } as const
  return { firstAttempt: outcome, everyAttempt: outcome }
}

function both(fault: string, meaning: string, each: FaultCase): FaultRow {
  return { fault, meaning, whole: each, stream: each }
}

/** Faults with three attempts strike "any endpoint" in docs/routing.md; those with two, "another endpoint". */
export const faultTable: readonly FaultRow[] = [
  both('status=400', 'refuses the request', refused('BACKEND_REJECTED')),
  both('status=401', "refuses the gate's credential", recovered('BACKEND_CREDENTIAL_REFUSED', 2)),
  both('status=403', "refuses the gate's credential", recovered('BACKEND_CREDENTIAL_REFUSED', 2)),
  both('status=404', 'does not know what is asked for', refused('BACKEND_REJECTED')),
  both('status=408', 'gave up waiting', recovered('BACKEND_FAILED', 3)),
  both('status=413', 'refuses the request as too large', refused('BACKEND_REJECTED')),
  both('status=422', 'refuses the request', refused('BACKEND_REJECTED')),
  both('status=429', 'is too busy', recovered('BACKEND_FAILED', 3)),
  both('status=500', 'fails', recovered('BACKEND_FAILED', 3)),
  both('status=502', 'has no backend of its own', recovered('BACKEND_FAILED', 3)),
  both('status=503', 'is overloaded', recovered('BACKEND_FAILED', 3)),
  both('status=504', 'waited in vain', recovered('BACKEND_FAILED', 2)),
  both('status=529', 'is overloaded', recovered('BACKEND_FAILED', 3)),
  both('reset', 'resets the connection before headers', recovered('BACKEND_FAILED', 3)),
  both('silence', 'never answers', recovered('BACKEND_TIMEOUT', 2)),
  both('html', 'answers 200 with a page of HTML', recovered('BACKEND_ANSWER_INVALID', 2)),
  both('empty', 'answers 200 with nothing', recovered('BACKEND_ANSWER_INVALID', 2)),
  both('missing-usage', 'reports no usage', uncounted),
  {
    fault: 'slow-first-token=60000',
    meaning: 'begins a stream and says nothing',
    whole: harmless,
    stream: recovered('BACKEND_TIMEOUT', 2),
  },
  both('cut=0', 'breaks the connection before the first token, or within the body', recovered('BACKEND_FAILED', 3)),
  both('stall=0', 'falls silent before the first token, or within the body', recovered('BACKEND_TIMEOUT', 2)),
  both('malformed=0', 'sends broken JSON first, or as the body', recovered('BACKEND_ANSWER_INVALID', 2)),
  {
    fault: 'end=0',
    meaning: 'ends a stream cleanly before the first token',
    whole: harmless,
    stream: recovered('BACKEND_FAILED', 3),
  },
  {
    fault: 'cut=3',
    meaning: 'breaks the connection after three tokens',
    whole: recovered('BACKEND_FAILED', 3),
    stream: broken('BACKEND_FAILED'),
  },
  {
    fault: 'stall=3',
    meaning: 'falls silent after three tokens',
    whole: recovered('BACKEND_TIMEOUT', 2),
    stream: broken('BACKEND_TIMEOUT'),
  },
  {
    fault: 'malformed=3',
    meaning: 'sends broken JSON after three tokens',
    whole: recovered('BACKEND_ANSWER_INVALID', 2),
    stream: broken('BACKEND_ANSWER_INVALID'),
  },
  {
    fault: 'end=3',
    meaning: 'ends a stream cleanly after three tokens',
    whole: harmless,
    stream: broken('BACKEND_FAILED'),
  },
]

/** How the error of an outcome is told, by protocol. `status` is the backend's, if it had one. */
export function toldError(reason: Reason, fault: string): { grpc: Code; openai: { status: number; code: string } } {
  const { status, code } = errorTable[reason]
  const isCallers = reason === 'BACKEND_REJECTED' && /^status=(400|413|422)$/.test(fault)
  return { grpc: reasons[reason].grpc, openai: { status: isCallers ? 400 : status, code } }
}

/** The table as docs/streams.md prints it: faults and outcomes, then errors and protocols. */
export function printFaultTable(): { readonly faults: readonly string[]; readonly errors: readonly string[] } {
  const faults = faultTable.map(({ fault, meaning, whole, stream }) => {
    const outcomes = [whole.firstAttempt, whole.everyAttempt, stream.firstAttempt, stream.everyAttempt]
    return row([`\`${fault}\``, meaning, ...outcomes.map(describe)])
  })
  const shown = new Set(
    faultTable
      .flatMap(({ whole, stream }) => [whole.everyAttempt, stream.everyAttempt])
      .flatMap((outcome) => (outcome.kind === 'answer' ? [] : [outcome.reason])),
  )
  const errors = [...shown].sort().map((reason) => {
    const { grpc, openai } = toldError(reason, '')
    const name = Code[grpc].replace(/(?<=[a-z])(?=[A-Z])/g, '_').toLowerCase()
    const status = reason === 'BACKEND_REJECTED' ? `400 or ${openai.status}` : openai.status
    return row([
      `\`${reason}\``,
      name.toUpperCase(),
      `\`${name}\``,
      `${status} \`${openai.code}\``,
      `\`${openai.code}\``,
    ])
  })
  return { faults, errors }
}

function describe(outcome: FaultOutcome): string {
  switch (outcome.kind) {
    case 'answer':
      if (outcome.usage === 'estimated') return 'answer, its usage estimated'
      return outcome.attempts === 1 ? 'answer' : 'answer of the second attempt'
    case 'error':
      return `\`${outcome.reason}\`, ${outcome.attempts === 1 ? '1 attempt' : `${outcome.attempts} attempts`}`
    case 'broken':
      return `3 tokens, then \`${outcome.reason}\``
  }
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
