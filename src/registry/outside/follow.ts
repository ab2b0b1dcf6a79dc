/**
 * What becomes of one service by an outside registry's word. Functions without I/O: the same ones plan a pass, and make the
 * change under the lock of the service's row.
 *
 * - What the registry **states** of a service holds here, but for its gate's own settings (`../stated-fields.ts`).
 * - A service that the registry does not list any more is **gone**: it takes no calls, and is retired when it stays away.
 * - An operator's suspension is not the registry's to end; a suspension for its word's sake is a **hold**, and ends with it.
 */
import { create, equals } from '@bufbuild/protobuf'
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt'
import { ServiceSchema } from '../../../gen/marketplace/v1/registry_pb.ts'
import type { ChangeOf } from '../../control/change-types.ts'
import { applyMask } from '../../field-mask.ts'
import { type Action, pastOf, transition } from '../lifecycle.ts'
import { type StatedLife, type StepLeave, stepsTo } from '../lifecycle-steps.ts'
import { priceText } from '../price-message.ts'
import type { ServiceRecord } from '../records.ts'
import { changedServiceRecord, newServiceRecord, serviceMessage } from '../service-message.ts'
import type { ServiceOrigin } from '../service-origin.ts'
import { statedFields } from '../stated-fields.ts'
import type { StatedService } from './stated-list.ts'

/** What becomes of a service, step by step; no step: what people see of it stays. */
export interface Following {
  readonly steps: readonly FollowingStep[]
  /** As it is after the steps. */
  readonly service: ServiceRecord
  /** Whether anything is to be stored. */
  readonly isChanged: boolean
  /** Whether the registry states another price than before. */
  readonly hasNewPrice: boolean
}

export interface FollowingStep {
  readonly type: ChangeOf<'service'>
  readonly reason: string
  readonly service: ServiceRecord
}

/** How long what is gone may come back, in milliseconds: a day. Nothing comes back that was retired. */
export const retireGoneAfterMs = 86_400_000

/** A service that the registry states, as it is registered here. */
export function followedFirst(stated: StatedService, newId: () => string, nowMs: number): Following {
  const origin = { ...stated.origin, price: priceText(stated.service.pricing) }
  const added = { ...newServiceRecord(stated.service, newId, nowMs), origin }
  const following = followed(added, stated, newId, nowMs)
  const registered = { type: 'service.registered', reason: '', service: added } as const
  return { ...following, steps: [registered, ...following.steps], isChanged: true, hasNewPrice: false }
}

/** A service after what the registry states of it. Nothing becomes of one that is retired. */
export function followed(service: ServiceRecord, stated: StatedService, newId: () => string, nowMs: number): Following {
  if (service.status === 'retired') return unchanged(service)
  const price = priceText(stated.service.pricing)
  const origin = { ...stated.origin, price, ...holdAfter(service, stated.life, 'suspended', nowMs) }
  const updated = { ...withSettings(service, stated, newId, nowMs), origin }
  return {
    ...afterLife(service, updated, stated.life, nowMs),
    hasNewPrice: price !== '' && price !== service.origin?.price,
  }
}

/** A service after a list that lacks it. */
export function followedGone(service: ServiceRecord, nowMs: number): Following {
  if (service.origin === undefined || service.status === 'retired') return unchanged(service)
  const goneSinceMs = service.origin.goneSinceMs ?? nowMs
  const isOver = nowMs - goneSinceMs >= retireGoneAfterMs
  const { registry, id, providerId, price } = service.origin
  const reason = `the registry ${registry} does not list it any more`
  const life: StatedLife = { status: isOver ? 'retired' : 'suspended', reason, deprecation: undefined }
  const origin = { registry, id, providerId, price, goneSinceMs, ...holdAfter(service, life, 'gone', nowMs) }
  return { ...afterLife(service, { ...service, origin }, life, nowMs), hasNewPrice: false }
}

function unchanged(service: ServiceRecord): Following {
  return { steps: [], service, isChanged: false, hasNewPrice: false }
}

/** Why a service that comes to be suspended is so; not by the registry, when an operator did it before. */
function holdAfter(
  service: ServiceRecord,
  life: StatedLife,
  hold: NonNullable<ServiceOrigin['hold']>,
  nowMs: number,
): Pick<ServiceOrigin, 'hold'> {
  const isOperators = service.status === 'suspended' && service.origin?.hold === undefined
  const { status } = stepsTo(service, life, leaveOf(service), nowMs).life
  return status === 'suspended' && !isOperators ? { hold } : {}
}

/** What is taken over was approved where it is registered. */
function leaveOf({ origin }: ServiceRecord): StepLeave {
  return { resumes: origin?.hold !== undefined, activates: true }
}

function withSettings(
  service: ServiceRecord,
  stated: StatedService,
  newId: () => string,
  nowMs: number,
): ServiceRecord {
  const wanted = applyMask(ServiceSchema, noRules, {
    current: create(ServiceSchema, serviceMessage(service, nowMs)),
    wanted: stated.service,
    mask: create(FieldMaskSchema, { paths: [...statedFields] }),
    field: 'service',
  })
  // Endpoints are known by their addresses: ids of the registry are its own.
  const endpoints = wanted.endpoints.map((endpoint) => ({ ...endpoint, id: '' }))
  return changedServiceRecord(service, { ...wanted, endpoints }, newId)
}

const noRules = { immutable: {}, outputOnly: [] }

/** The steps from a service to the same with other settings, and then to its stated life. */
function afterLife(
  before: ServiceRecord,
  updated: ServiceRecord,
  life: StatedLife,
  nowMs: number,
): Omit<Following, 'hasNewPrice'> {
  const steps: FollowingStep[] = []
  let reached = before
  const take = (type: ChangeOf<'service'>, reason: string, next: ServiceRecord): void => {
    reached = { ...next, revision: reached.revision + 1, updatedAtMs: nowMs }
    steps.push({ type, reason, service: reached })
  }
  if (!isShownAlike(before, updated, nowMs)) take('service.updated', '', updated)
  else reached = { ...updated, revision: before.revision }
  for (const action of stepsTo(before, life, leaveOf(before), nowMs).actions) {
    take(pastOf[action.kind], reasonOf(action), { ...reached, ...transition(reached, action, nowMs) })
  }
  const isChanged = steps.length > 0 || !isSameOrigin(before.origin, updated.origin)
  return { steps, service: reached, isChanged }
}

function reasonOf(action: Action): string {
  return 'reason' in action ? action.reason : ''
}

function isShownAlike(one: ServiceRecord, other: ServiceRecord, nowMs: number): boolean {
  const [left, right] = [one, other].map((each) => create(ServiceSchema, serviceMessage(each, nowMs)))
  return left !== undefined && right !== undefined && equals(ServiceSchema, left, right)
}

function isSameOrigin(one: ServiceOrigin | undefined, other: ServiceOrigin | undefined): boolean {
  const keys = ['registry', 'id', 'providerId', 'hold', 'goneSinceMs', 'price'] as const
  return keys.every((key) => one?.[key] === other?.[key])
}
