import { type ServiceRecord, type ServiceStatus, takesCalls } from '../records.ts'
import { followed, followedGone } from './follow.ts'
import type { StatedList, StatedService } from './stated-list.ts'

/** What a pass changes, so that the services here are what the registry lists. */
export interface Plan {
  readonly adds: readonly StatedService[]
  readonly changes: readonly { readonly id: string; readonly stated: StatedService }[]
  /** Ids of services that the list lacks, and that something becomes of. */
  readonly gone: readonly string[]
  /** How many services the list lacks that are left as they are, because it lacks too many. */
  readonly heldBack: number
  /** Why services of the list are not taken over, by key. */
  readonly conflicts: ReadonlyMap<string, string>
}

/**
 * Compares what a registry lists with all services here. Own services are never touched, and no name that has own services
 * is shared with the registry: whoever has its newest version gets the calls to it. Carried out, a plan leaves nothing to plan.
 *
 * @param goneShare share of what is taken over that a list may lack. Beyond it, the list counts as broken. One may always
 *   be missing, but an empty list is believed only with a share of 1.
 */
export function planFollowing(
  list: StatedList,
  have: readonly ServiceRecord[],
  { goneShare, nowMs }: { readonly goneShare: number; readonly nowMs: number },
): Plan {
  const known = new Map(have.map((service) => [keyOf(service), service]))
  const ownNames = new Set(have.filter(isOwnName).map(({ name }) => name))
  const conflicts = new Map<string, string>()
  const adds: StatedService[] = []
  const changes: { id: string; stated: StatedService }[] = []
  for (const stated of list.services) {
    const service = known.get(stated.key)
    const conflict = conflictOf(stated, service, ownNames)
    if (conflict !== undefined) conflicts.set(stated.key, conflict)
    else if (service === undefined && stated.life.status !== 'retired') adds.push(stated)
    else if (service !== undefined && followed(service, stated, noId, nowMs).isChanged) {
      changes.push({ id: service.id, stated })
    }
  }
  const missing = missingOf(list, have, { goneShare, nowMs, added: adds.length })
  return { adds, changes, conflicts, ...missing }
}

/** The share is of what lives after the pass, so that the next one thinks of it as this one does. */
function missingOf(
  list: StatedList,
  have: readonly ServiceRecord[],
  { goneShare, nowMs, added }: { readonly goneShare: number; readonly nowMs: number; readonly added: number },
): Pick<Plan, 'gone' | 'heldBack'> {
  const listed = new Map<string, ServiceStatus | undefined>(list.services.map(({ key, life }) => [key, life.status]))
  for (const key of list.unreadable.keys()) listed.set(key, undefined)
  const followedOnes = have.filter(({ origin, status }) => origin !== undefined && status !== 'retired')
  const missing = followedOnes.filter((service) => !listed.has(keyOf(service)))
  const retiring = followedOnes.filter((service) => listed.get(keyOf(service)) === 'retired')
  const most = Math.max(1, Math.floor((followedOnes.length - retiring.length + added) * goneShare))
  const isBelieved = goneShare === 1 || (list.isWhole && listed.size > 0 && missing.length <= most)
  if (!isBelieved) return { gone: [], heldBack: missing.length }
  const changed = missing.filter((service) => followedGone(service, nowMs).isChanged)
  return { gone: changed.map(({ id }) => id), heldBack: 0 }
}

function conflictOf(
  { life, service: { name } }: StatedService,
  service: ServiceRecord | undefined,
  ownNames: ReadonlySet<string>,
): string | undefined {
  if (service === undefined) return ownNames.has(name) ? 'its name has services that were registered here' : undefined
  if (service.origin === undefined) return 'it was registered here'
  const isBack = service.status === 'retired' && takesCalls(life.status)
  return isBack ? `it was retired here, and nothing leaves that status: register another version` : undefined
}

function isOwnName({ origin, status }: ServiceRecord): boolean {
  return origin === undefined && status !== 'retired'
}

function keyOf({ name, version }: ServiceRecord): string {
  return `${name}@${version}`
}

/** For comparisons: new endpoints count as changes whatever their ids are. */
function noId(): string {
  return ''
}
