/**
 * The life of a service version. What may become of it is the table {@link transitions}; {@link transition} is the only way
 * from one status to another. Nothing leaves `retired`.
 */
import type { ChangeOf } from '../control/change-types.ts'
import { TollgateError } from '../errors.ts'
import type { ServiceStatus } from './records.ts'

/** Where a service stands in its life. */
export interface Lifecycle {
  readonly status: ServiceStatus
  /** Unix milliseconds since when it has the status. */
  readonly statusSinceMs: number
  /** Why it is suspended or retired; else empty. */
  readonly statusReason: string
  /** Of a service that is deprecated, or was when it was suspended or retired. */
  readonly deprecation: Deprecation | undefined
}

export interface Deprecation {
  /** Unix milliseconds. */
  readonly atMs: number
  /** Unix milliseconds at which it is going to be retired; undefined: not known yet. */
  readonly sunsetAtMs: number | undefined
  readonly message: string
  /** Id, name or name@version of what takes its place; empty: nothing does. */
  readonly successor: string
}

/** What is done to a service. */
export type Action =
  | { readonly kind: 'activate' }
  | ({ readonly kind: 'deprecate' } & Omit<Deprecation, 'atMs'>)
  | { readonly kind: 'suspend'; readonly reason: string }
  | { readonly kind: 'resume' }
  | { readonly kind: 'retire'; readonly reason: string; readonly successor: string }

/** Statuses that a service may be registered with. */
export const firstStatuses: readonly ServiceStatus[] = ['active', 'pending_approval']

/**
 * From which statuses an action leads where. Resumed, a suspended service is what it was before: deprecated if its deprecation
 * stands, else active.
 */
export const transitions: Readonly<
  Record<Action['kind'], Readonly<Partial<Record<ServiceStatus, readonly ServiceStatus[]>>>>
> = {
  activate: { pending_approval: ['active'] },
  deprecate: { active: ['deprecated'], deprecated: ['deprecated'] },
  suspend: { active: ['suspended'], deprecated: ['suspended'] },
  resume: { suspended: ['active', 'deprecated'], deprecated: ['active'] },
  retire: { pending_approval: ['retired'], active: ['retired'], deprecated: ['retired'], suspended: ['retired'] },
}

/** What became of a service, as its trail says it. */
export const pastOf: Readonly<Record<Action['kind'], ChangeOf<'service'>>> = {
  activate: 'service.activated',
  deprecate: 'service.deprecated',
  suspend: 'service.suspended',
  resume: 'service.resumed',
  retire: 'service.retired',
}

/** The life of a service after an action. Throws SERVICE_STATUS_CONFLICT when its status allows none such. */
export function transition(service: Lifecycle, action: Action, nowMs: number): Lifecycle {
  const { status, deprecation } = service
  const [first, other] = transitions[action.kind][status] ?? []
  // Only a resumption has a choice.
  const next = deprecation === undefined ? first : (other ?? first)
  if (next === undefined) throw conflict(status, action.kind)
  return {
    status: next,
    statusSinceMs: next === status ? service.statusSinceMs : nowMs,
    statusReason: action.kind === 'suspend' || action.kind === 'retire' ? action.reason : '',
    deprecation: deprecationAfter(service, action, nowMs),
  }
}

function deprecationAfter({ status, deprecation }: Lifecycle, action: Action, nowMs: number): Deprecation | undefined {
  switch (action.kind) {
    case 'deprecate': {
      const { kind, ...said } = action
      return { atMs: deprecation?.atMs ?? nowMs, ...said }
    }
    case 'resume':
      return status === 'suspended' ? deprecation : undefined
    case 'retire': {
      if (action.successor === '') return deprecation
      const said = deprecation ?? { atMs: nowMs, sunsetAtMs: undefined, message: '' }
      return { ...said, successor: action.successor }
    }
    default:
      return deprecation
  }
}

function conflict(status: ServiceStatus, action: Action['kind']): TollgateError {
  const from = Object.keys(transitions[action])
  return new TollgateError(
    'SERVICE_STATUS_CONFLICT',
    `The service is ${status}; to ${action} it, it must be ${from.join(' or ')}.`,
    { metadata: { status, action, from: from.join(',') } },
  )
}
