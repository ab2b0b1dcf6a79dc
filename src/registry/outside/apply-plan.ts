import { systemActor } from '../../control/actor.ts'
import { TollgateError } from '../../errors.ts'
import { alreadyExists, storing } from '../../storage/constraint-error.ts'
import type { Sql, Transaction } from '../../storage/postgres.ts'
import { recordService } from '../change-service.ts'
import { lockName } from '../name-owners.ts'
import { recordPrice } from '../price-handlers.ts'
import { priceModel } from '../price-message.ts'
import { addPrice } from '../price-store.ts'
import type { ServiceRecord } from '../records.ts'
import { insertService, lockService, updateService } from '../service-store.ts'
import { type Following, followed, followedFirst, followedGone } from './follow.ts'
import type { Plan } from './plan.ts'
import type { StatedService } from './stated-list.ts'

export interface ApplyOptions {
  readonly sql: Sql
  readonly newId: () => string
  /** Unix milliseconds. */
  readonly now: () => number
}

/** What a pass did; `failed` says why by key or id, without what failed for want of Postgres. */
export interface Applied {
  readonly added: number
  readonly changed: number
  readonly gone: number
  readonly failed: ReadonlyMap<string, string>
}

/**
 * Carries a plan out, a transaction for each service, whose row decides anew what is to become of it: between the plan and
 * its turn, others may have changed it. Rejects when the database cannot be written; what was done until then stays.
 */
export async function applyPlan(options: ApplyOptions, plan: Plan): Promise<Applied> {
  const { sql, newId, now } = options
  const failed = new Map<string, string>()
  const counts = { added: 0, changed: 0, gone: 0 }
  const attempt = async (count: keyof typeof counts, name: string, work: () => Promise<boolean>): Promise<void> => {
    try {
      if (await work()) counts[count] += 1
    } catch (error) {
      if (!(error instanceof TollgateError) || error.reason === 'STORAGE_UNAVAILABLE') throw error
      failed.set(name, error.message)
    }
  }
  const change = (id: string, become: (service: ServiceRecord) => Following, stated?: StatedService) =>
    storing(() => sql.begin((tx) => changeOne(tx, id, become, stated, now())))
  for (const stated of plan.adds) await attempt('added', stated.key, () => add(options, stated))
  for (const { id, stated } of plan.changes) {
    await attempt('changed', stated.key, () => change(id, (one) => followed(one, stated, newId, now()), stated))
  }
  for (const id of plan.gone) await attempt('gone', id, () => change(id, (one) => followedGone(one, now())))
  return { ...counts, failed }
}

async function add({ sql, newId, now }: ApplyOptions, stated: StatedService): Promise<boolean> {
  const nowMs = now()
  const { steps, service } = followedFirst(stated, newId, nowMs)
  const { name, version } = stated.service
  return await storing(
    () =>
      sql.begin(async (tx) => {
        await lockName(tx, name)
        const [own] = await tx`
          select from services where name = ${name} and origin is null and status <> 'retired' limit 1`
        // Somebody was faster; the next plan says so.
        if (own !== undefined) return false
        const [first] = steps
        if (first === undefined) return false
        await insertService(tx, first.service)
        if (steps.length > 1) await updateService(tx, service)
        await leaveTrail(tx, undefined, steps, nowMs)
        return true
      }),
    { services_name_version_key: () => alreadyExists('version', version, ` for service ${name}`) },
  )
}

async function changeOne(
  tx: Transaction,
  id: string,
  become: (service: ServiceRecord) => Following,
  stated: StatedService | undefined,
  nowMs: number,
): Promise<boolean> {
  const before = await lockService(tx, id)
  if (before?.origin === undefined) return false
  const { steps, service, isChanged, hasNewPrice } = become(before)
  if (!isChanged) return false
  await updateService(tx, service)
  await leaveTrail(tx, before, steps, nowMs)
  const pricing = stated?.service.pricing
  if (hasNewPrice && pricing !== undefined) {
    const price = { currency: pricing.currency, model: priceModel(pricing.model, 'service.pricing') }
    const added = await addPrice(tx, id, price, undefined)
    if (added.outcome === 'added') await recordPrice(tx, actor, before, added.price)
  }
  return true
}

async function leaveTrail(
  tx: Transaction,
  before: ServiceRecord | undefined,
  steps: Following['steps'],
  nowMs: number,
): Promise<void> {
  let last = before
  for (const { type, reason, service } of steps) {
    await recordService(tx, actor, { type, reason }, last, service, nowMs)
    last = service
  }
}

/** Who makes these changes, as the trail has it. */
const actor = systemActor('registry')
