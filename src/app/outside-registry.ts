import { create } from '@bufbuild/protobuf'
import type { Logger } from 'pino'
import { type Service, ServiceSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import type { OutsideRegistrySettings } from '../config/registry.ts'
import type { Config } from '../config.ts'
import { compileFieldRules } from '../field-rules.ts'
import { newId } from '../ids.ts'
import { createRegistryClient, type Listing } from '../registrations/registry-client.ts'
import { RegistryError } from '../registrations/registry-error.ts'
import { applyPlan } from '../registry/outside/apply-plan.ts'
import { planFollowing } from '../registry/outside/plan.ts'
import { type Look, type RegistryWatch, watchRegistry } from '../registry/outside/registry-watch.ts'
import { repairDrift } from '../registry/outside/repair-drift.ts'
import { statedList } from '../registry/outside/stated-list.ts'
import { serviceMessage } from '../registry/service-message.ts'
import type { Snapshots } from '../registry/snapshots.ts'
import type { Sql } from '../storage/postgres.ts'
import type { Closers } from './closers.ts'

export interface OutsideRegistryParts {
  readonly sql: Sql
  readonly log: Logger
  /** Unix milliseconds. */
  readonly now: () => number
  readonly snapshots: Snapshots
}

/** Begins to follow the outside registry; undefined without one. */
export function openOutsideRegistry(
  { registry }: Config,
  parts: OutsideRegistryParts,
  closers: Closers,
): RegistryWatch | undefined {
  const { outside } = registry
  if (outside === undefined) return undefined
  const { sql, log, now } = parts
  const client = createRegistryClient(outside)
  closers.push(() => client.close())
  const follow = follower(outside, parts)
  const repair = { client, now, ...registry }
  const watch = watchRegistry({
    sql,
    log,
    now,
    url: outside.url,
    everyMs: outside.everyMs,
    async look(signal) {
      const listing = await client.list(signal).catch((error: unknown) => {
        // One that is only told need not list anything: then nobody can see what it lost.
        if (outside.isSource || !(error instanceof RegistryError) || error.kind !== 'unsupported') throw error
        return undefined
      })
      if (listing === undefined) return nothing
      const look = outside.isSource ? await follow(listing) : { ...nothing, listed: listing.entries.length }
      if (!outside.isTold) return look
      const services = parts.snapshots.current().servicesById.values()
      const { repaired, failed } = await repairDrift(repair, listing.entries, services, signal)
      return {
        ...look,
        passedOver: new Map([...look.passedOver, ...failed]),
        done: { ...look.done, repaired },
      }
    },
  })
  closers.push(() => watch.stop())
  return watch
}

const nothing: Look = { listed: 0, followed: 0, heldBack: 0, passedOver: new Map(), done: {} }

/** Takes over what a registry lists. */
function follower(
  { url, goneShare, credentials }: OutsideRegistrySettings,
  { sql, now, snapshots }: OutsideRegistryParts,
): (listing: Listing) => Promise<Look> {
  const rules = compileFieldRules([ServiceSchema])
  return async (listing) => {
    await snapshots.refresh()
    const { servicesById, servicesByVersion } = snapshots.current()
    const list = statedList(listing, {
      registry: url,
      credentials,
      rules,
      isOwn: (id) => servicesById.get(id)?.origin === undefined && servicesById.has(id),
      endpointsOf(key): Service['endpoints'] {
        const service = servicesByVersion.get(key)
        return service?.origin === undefined ? [] : create(ServiceSchema, serviceMessage(service, now())).endpoints
      },
    })
    const plan = planFollowing(list, [...servicesById.values()], { goneShare, nowMs: now() })
    const { failed, ...done } = await applyPlan({ sql, newId, now }, plan)
    await snapshots.refresh()
    const after = snapshots.current().servicesById.values()
    return {
      listed: listing.entries.length + listing.nameless,
      followed: [...after].filter(({ origin, status }) => origin !== undefined && status !== 'retired').length,
      heldBack: plan.heldBack,
      passedOver: new Map([...list.unreadable, ...plan.conflicts, ...failed]),
      done,
    }
  }
}
