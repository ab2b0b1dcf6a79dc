import { type Action, type Deprecation, type Lifecycle, transition } from './lifecycle.ts'
import { type ServiceStatus, takesCalls } from './records.ts'

/** How a service is said to stand by somebody else's word: an outside registry, or whoever registered it here. */
export interface StatedLife {
  readonly status: ServiceStatus
  /** Why, of one that is suspended or retired. */
  readonly reason: string
  /** Undefined: nothing is said of one. */
  readonly deprecation: Omit<Deprecation, 'atMs'> | undefined
}

/** What the word may undo: an operator's own decision is not undone by it. */
export interface StepLeave {
  /** Whether a suspension is the word's own. */
  readonly resumes: boolean
  /** Whether the word is an approval. */
  readonly activates: boolean
}

/**
 * The actions by which a service comes to stand as it is stated, and how it stands after them. Where the table of
 * `lifecycle.ts` or the leave does not lead there, they lead as far as they can: nothing leaves `retired`.
 */
export function stepsTo(
  life: Lifecycle,
  stated: StatedLife,
  leave: StepLeave,
  nowMs: number,
): { readonly actions: readonly Action[]; readonly life: Lifecycle } {
  const actions: Action[] = []
  let reached = life
  for (let action = nextAction(reached, stated, leave); action !== undefined; ) {
    actions.push(action)
    reached = transition(reached, action, nowMs)
    action = nextAction(reached, stated, leave)
  }
  return { actions, life: reached }
}

function nextAction(life: Lifecycle, stated: StatedLife, leave: StepLeave): Action | undefined {
  const { status } = life
  if (status === 'retired') return undefined
  if (stated.status === 'retired') return { kind: 'retire', reason: stated.reason, successor: '' }
  const isOpen = takesCalls(stated.status)
  if (status === 'pending_approval') return isOpen && leave.activates ? { kind: 'activate' } : undefined
  if (status === 'suspended') return isOpen && leave.resumes ? { kind: 'resume' } : undefined
  if (!isOpen) return { kind: 'suspend', reason: stated.reason }
  if (stated.status === 'active') return status === 'deprecated' ? { kind: 'resume' } : undefined
  const said = { sunsetAtMs: undefined, message: '', successor: '', ...stated.deprecation }
  return isSaid(life, said) ? undefined : { kind: 'deprecate', ...said }
}

function isSaid({ status, deprecation }: Lifecycle, said: Omit<Deprecation, 'atMs'>): boolean {
  return (
    status === 'deprecated' &&
    deprecation?.sunsetAtMs === said.sunsetAtMs &&
    deprecation?.message === said.message &&
    deprecation?.successor === said.successor
  )
}
