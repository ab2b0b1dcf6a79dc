/** What is asked in a run: a pure function of seed and number of the call, whatever became of the calls before it. */
import { random } from './random.ts'

export type Wire = 'grpc' | 'connect-json'

export interface CallPlan {
  /** From 0. */
  readonly index: number
  /** Unique in the run; sent as metadata, so that the ledger names it, and, where `isKeyed`, as `idempotency-key`. */
  readonly key: string
  /** False: each try of it is a call of its own. */
  readonly isKeyed: boolean
  readonly tenant: number
  /** Who is called first; each further try goes to the next one. */
  readonly gateway: number
  readonly wire: Wire
  readonly content: string
  /** Carries what the practice backend is to do wrong. */
  readonly model: string
  /** Deadline of the first try, when the plan is that it is missed. */
  readonly firstTimeoutMs: number | undefined
  /** Reason of the error that the call must end with; undefined when it must be answered. */
  readonly endsWith: string | undefined
  /** Its tenant has a budget: it uses no more than it reserves, and may be refused. */
  readonly isBudgeted: boolean
  /** Reasons that a try may fail with because the plan asks for it. */
  readonly mayFailWith: readonly string[]
  /** Asked again after its answer, as a caller does that lost it. */
  readonly isRepeated: boolean
  /** Of this call's own; for the pauses between its tries. */
  readonly next: () => number
}

export interface CallPlanner {
  readonly seed: number
  readonly tenants: number
  /** The last so many of the tenants have a budget. */
  readonly budgets: number
  readonly gateways: number
  /** True: most calls have no idempotency key and are of few tenants, so that gateways take slices of their limits. */
  readonly hasKeyless?: boolean
  /** False leaves the backend alone: every failure of a try is then the gate's. */
  readonly backendFaults: boolean
}

/** Of ten calls, without a key. */
const keylessOfTen = 7
/** Calls one after the other whose keyless ones are of the same tenant: so many make its limits busy. */
const keylessInRow = 200

/** The plan of one call. */
export function planCall(planner: CallPlanner, index: number): CallPlan {
  const isKeyed = planner.hasKeyless !== true || index % 10 >= keylessOfTen
  if (isKeyed) return planKeyed(planner, index)
  // In turn of the first tenant, which has no budget, and of the first that has one.
  const isBudgeted = planner.budgets > 0 && Math.floor(index / keylessInRow) % 2 === 1
  const plan = planKeyed({ ...planner, tenants: 1, budgets: isBudgeted ? 1 : 0 }, index)
  return { ...plan, tenant: isBudgeted ? planner.tenants - planner.budgets : 0, isKeyed, isRepeated: false }
}

function planKeyed({ seed, tenants, budgets, gateways, backendFaults }: CallPlanner, index: number): CallPlan {
  const next = random(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b))
  const pick = (count: number): number => Math.floor(next() * count)
  const key = `${seed}-${index}`
  const tenant = pick(tenants)
  const isBudgeted = tenant >= tenants - budgets
  const plain = {
    index,
    key,
    isKeyed: true,
    tenant,
    isBudgeted,
    gateway: pick(gateways),
    wire: next() < 0.5 ? 'grpc' : 'connect-json',
    content: 'x '.repeat(1 + pick(60)),
    firstTimeoutMs: undefined,
    endsWith: undefined,
    mayFailWith: [],
    isRepeated: next() < 0.06,
    next,
  } as const
  const wait = `delay=${pick(20)}`
  const of = (fault: string): string => `practice:${fault}`
  const dice = next()
  if (dice < 0.1) {
    const sizes = isBudgeted ? '' : `in=${90 + pick(400)},out=${pick(900)},`
    const usage = `${sizes}cached=${pick(90)},reasoning=${pick(200)}`
    return { ...plain, model: of(`${wait},${usage}`) }
  }
  if (!backendFaults || dice > 0.26) return { ...plain, model: of(wait) }
  if (dice < 0.13) return { ...plain, model: of(isBudgeted ? wait : `${wait},missing-usage`) }
  if (dice < 0.16) return { ...plain, model: of(`${wait},status=400`), endsWith: 'BACKEND_REJECTED', isRepeated: false }
  if (dice < 0.18) {
    const mayFailWith = ['DEADLINE_EXCEEDED', 'CANCELLED', '']
    return { ...plain, model: of('delay=200'), firstTimeoutMs: 50, mayFailWith }
  }
  const kind = ['status=503', 'reset', 'cut', 'malformed', 'empty'][pick(5)] ?? 'reset'
  const mayFailWith = ['BACKEND_FAILED', 'BACKEND_ANSWER_INVALID', 'BREAKER_OPEN']
  return { ...plain, model: of(`${wait},fail-first=1,id=${key},${kind}`), mayFailWith }
}

/** Whether a call is as planned that ends with this reason; undefined: with an answer. */
export function mayEndWith(plan: CallPlan, reason: string | undefined): boolean {
  return reason === plan.endsWith || isRefusal(plan, reason)
}

/** Whether this is a budget that says no. */
export function isRefusal(plan: CallPlan, reason: string | undefined): boolean {
  return plan.isBudgeted && reason === 'QUOTA_EXCEEDED'
}
