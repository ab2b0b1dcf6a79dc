import { PracticeRequestError } from './requests.ts'
import type { ForcedUsage } from './usage.ts'

/** What goes wrong with a call. Everything but `none` changes the answer; delays are beside it, in {@link Fault}. */
export type FaultKind = (typeof faultKinds)[number] | 'none'

/**
 * How one call is to be answered, written as comma-separated words, for example `status=429,retry-after=2` or
 * `fail-first=2,id=abc,reset`. n counts the tokens of text sent before it strikes, 1 by default.
 *
 * | word | effect |
 * |---|---|
 * | `status=503` | answers with this 4xx or 5xx; `retry-after=2` adds the header (429 and 503 have 1 by default) |
 * | `delay=2000` | waits this many ms before anything else |
 * | `slow-first-token=500` | sends headers at once and the first token after this many ms |
 * | `pace=20` | waits this many ms between the tokens of a stream |
 * | `reset` | resets the connection before headers |
 * | `silence` | never answers |
 * | `cut=n` | destroys the connection after n tokens of a stream, or half the body |
 * | `stall=n` | falls silent after n tokens of a stream, or half the body |
 * | `end=n` | ends a stream cleanly after n tokens, without finish reason and `[DONE]` |
 * | `malformed=n` | one event of broken JSON after n tokens of a stream; half the body as the whole one otherwise |
 * | `missing-usage` | reports no usage |
 * | `html` | 200 with an HTML page |
 * | `empty` | 200 with nothing in it |
 * | `fail-first=n,id=x` | the rest of the words (`status=503` if none) for the first n calls with this id, then none |
 * | `in= out= cached= reasoning=` | exact token counts to report |
 */
export interface Fault {
  readonly kind: FaultKind
  readonly status: number
  readonly retryAfterS: number | undefined
  readonly delayMs: number | undefined
  readonly firstTokenMs: number
  readonly paceMs: number
  readonly afterTokens: number
  readonly failFirst: number
  readonly id: string
  readonly usage: ForcedUsage
}

/** Every kind of fault. */
export const faultKinds = [
  'status',
  'reset',
  'silence',
  'cut',
  'stall',
  'end',
  'malformed',
  'missing-usage',
  'html',
  'empty',
] as const

/** Answers as it should. */
const noFault: Fault = {
  kind: 'none',
  status: 200,
  retryAfterS: undefined,
  delayMs: undefined,
  firstTokenMs: 0,
  paceMs: 0,
  afterTokens: 1,
  failFirst: 0,
  id: '',
  usage: {},
}

/** Longest delay that can be asked for, in milliseconds. */
export const maxDelayMs = 600_000

const maxIds = 10_000
const maxScheduled = 1_000
const maxCount = 1_000_000_000

/** Parses the words of a fault; throws {@link PracticeRequestError} that names the word it does not know. */
export function parseFault(text: string): Fault {
  const fault: { -readonly [K in keyof Fault]: Fault[K] } = { ...noFault }
  const usage: { -readonly [K in keyof ForcedUsage]: ForcedUsage[K] } = {}
  for (const word of text.split(',')) {
    const [name = '', value] = word.trim().split('=', 2)
    if (name === 'in') usage.promptTokens = count(word, value, maxCount)
    else if (name === 'out') usage.completionTokens = count(word, value, maxCount)
    else if (name === 'cached') usage.cachedTokens = count(word, value, maxCount)
    else if (name === 'reasoning') usage.reasoningTokens = count(word, value, maxCount)
    else if (name === 'delay') fault.delayMs = count(word, value, maxDelayMs)
    else if (name === 'slow-first-token') fault.firstTokenMs = count(word, value, maxDelayMs)
    else if (name === 'pace') fault.paceMs = count(word, value, maxDelayMs)
    else if (name === 'retry-after') fault.retryAfterS = count(word, value, 86_400)
    else if (name === 'fail-first') fault.failFirst = count(word, value, maxCount)
    else if (name === 'id') fault.id = (value ?? '').slice(0, 128)
    else {
      const kind = faultKinds.find((known) => known === name)
      if (kind === undefined) throw new PracticeRequestError(`unknown fault "${name.slice(0, 64)}"`)
      fault.kind = kind
      if (kind === 'status') fault.status = count(word, value, 599)
      else if (value !== undefined) fault.afterTokens = count(word, value, maxCount)
    }
  }
  if (fault.kind === 'status' && fault.status < 400) throw new PracticeRequestError('status must be 400 to 599')
  if (fault.failFirst > 0 && fault.id === '') throw new PracticeRequestError('fail-first needs an id')
  if (fault.failFirst > 0 && fault.kind === 'none') Object.assign(fault, { kind: 'status', status: 503 })
  fault.usage = usage
  return fault
}

/** Decides the fault of each call: its own one (header or address, else model name), else the next scheduled one, else none. */
export class FaultBook {
  readonly #scheduled: { fault: Fault; times: number }[] = []
  readonly #calls = new Map<string, number>()

  /** Applies a fault to the next `times` calls that name none themselves. Throws when 1,000 are waiting. */
  schedule(text: string, times: number): void {
    if (!Number.isSafeInteger(times) || times < 1) throw new PracticeRequestError('times must be a positive integer')
    if (this.#scheduled.length >= maxScheduled) throw new PracticeRequestError('too many faults are scheduled')
    this.#scheduled.push({ fault: parseFault(text), times })
  }

  /** Forgets what is scheduled, and the calls that were counted for `fail-first`. */
  clear(): void {
    this.#scheduled.length = 0
    this.#calls.clear()
  }

  /** The fault of a call, counted as one call for `fail-first` and for the schedule. */
  take(asked: string | undefined, model: string): Fault {
    const own = asked ?? (model.startsWith('practice:') ? model.slice('practice:'.length) : undefined)
    if (own !== undefined) return this.#counted(parseFault(own))
    const next = this.#scheduled[0]
    if (next === undefined) return noFault
    next.times -= 1
    if (next.times === 0) this.#scheduled.shift()
    return this.#counted(next.fault)
  }

  #counted(fault: Fault): Fault {
    if (fault.failFirst === 0) return fault
    const calls = (this.#calls.get(fault.id) ?? 0) + 1
    this.#calls.delete(fault.id)
    this.#calls.set(fault.id, calls)
    for (const oldest of this.#calls.keys()) {
      if (this.#calls.size <= maxIds) break
      this.#calls.delete(oldest)
    }
    return calls <= fault.failFirst ? fault : { ...noFault, usage: fault.usage }
  }
}

function count(word: string, value: string | undefined, most: number): number {
  const number = value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
  if (number <= most) return number
  throw new PracticeRequestError(`"${word.slice(0, 64)}" needs a whole number from 0 to ${most}`)
}
