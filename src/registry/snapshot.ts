import { type UserRecord, userKey } from '../identity/user-record.ts'
import { type LimitRule, limitSubject } from '../limits/limit-rule.ts'
import type { PolicyRecord } from '../policy/policy-record.ts'
import {
  type ConsumerRecord,
  type OrganizationRecord,
  type ProjectRecord,
  priceAt,
  type ServiceRecord,
  takesCalls,
} from './records.ts'
import { compareVersions, isRelease } from './semver.ts'
import type { TrafficSplitRecord } from './traffic-split.ts'

/** Everything that a call needs to know of the control plane at one version of it. Never changes; lookups are Map gets. */
export interface Snapshot {
  /** Of `control_version`; 0 before the first load. */
  readonly version: number
  readonly servicesById: ReadonlyMap<string, ServiceRecord>
  /**
   * The version that a bare name means: the newest active release, else the newest deprecated release, else the newest active
   * pre-release, else the newest deprecated one, else the newest of all.
   */
  readonly servicesByName: ReadonlyMap<string, ServiceRecord>
  /** By "name@version". */
  readonly servicesByVersion: ReadonlyMap<string, ServiceRecord>
  /** By name. */
  readonly splits: ReadonlyMap<string, TrafficSplitRecord>
  readonly organizationsById: ReadonlyMap<string, OrganizationRecord>
  readonly projectsById: ReadonlyMap<string, ProjectRecord>
  readonly consumersById: ReadonlyMap<string, ConsumerRecord>
  /** By {@link userKey}; those that may not call are there, too. */
  readonly usersBySubject: ReadonlyMap<string, UserRecord>
  /** By {@link limitSubject}: all rules of a subject, in a fixed order; a subject without rules has no entry. */
  readonly limitRules: ReadonlyMap<string, readonly LimitRule[]>
  /** Those in force. The same array as long as nothing in the catalog changed. */
  readonly policies: readonly PolicyRecord[]
  /** Unix milliseconds at which some service's price changes next; Infinity when no change is known. */
  readonly nextPriceChangeMs: number
}

/** The reading end that the hot path and the handlers share. */
export interface SnapshotSource {
  /** The newest snapshot of this process; cheap, never waits. */
  current(): Snapshot
  /** Resolves when `current()` holds every change that was committed before the call. */
  refresh(): Promise<void>
}

export const emptySnapshot: Snapshot = buildSnapshot({ version: 0, services: [], consumers: [], nowMs: 0 })

export interface SnapshotParts {
  readonly version: number
  readonly services: Iterable<ServiceRecord>
  readonly consumers: Iterable<ConsumerRecord>
  /** Default none, here and below. */
  readonly organizations?: Iterable<OrganizationRecord>
  readonly projects?: Iterable<ProjectRecord>
  readonly users?: Iterable<UserRecord>
  readonly splits?: Iterable<TrafficSplitRecord>
  readonly limitRules?: Iterable<LimitRule>
  /** Default none. */
  readonly policies?: readonly PolicyRecord[]
  /** Unix milliseconds that decides which price is in force. */
  readonly nowMs: number
}

/** Indexes records and puts the price in force at `nowMs` into each service. */
export function buildSnapshot(parts: SnapshotParts): Snapshot {
  const servicesById = new Map<string, ServiceRecord>()
  const servicesByName = new Map<string, ServiceRecord>()
  const servicesByVersion = new Map<string, ServiceRecord>()
  let nextPriceChangeMs = Number.POSITIVE_INFINITY
  for (const record of parts.services) {
    const service = { ...record, price: priceAt(record, parts.nowMs) }
    servicesById.set(service.id, service)
    servicesByVersion.set(`${service.name}@${service.version}`, service)
    const rival = servicesByName.get(service.name)
    if (rival === undefined || isPreferred(service, rival)) servicesByName.set(service.name, service)
    for (const price of service.prices) {
      if (price.effectiveFromMs > parts.nowMs) nextPriceChangeMs = Math.min(nextPriceChangeMs, price.effectiveFromMs)
    }
  }
  const organizationsById = byId(parts.organizations ?? [])
  const projectsById = byId(parts.projects ?? [])
  const consumersById = byId(parts.consumers)
  const usersBySubject = new Map<string, UserRecord>()
  for (const user of parts.users ?? []) usersBySubject.set(userKey(user.issuer, user.subject), user)
  const limitRules = Map.groupBy(parts.limitRules ?? [], (rule) => limitSubject(rule.scope, rule.subjectId))
  return {
    version: parts.version,
    servicesById,
    servicesByName,
    servicesByVersion,
    splits: new Map([...(parts.splits ?? [])].map((split) => [split.name, split])),
    organizationsById,
    projectsById,
    consumersById,
    usersBySubject,
    limitRules,
    policies: parts.policies ?? [],
    nextPriceChangeMs,
  }
}

function byId<T extends { readonly id: string }>(records: Iterable<T>): Map<string, T> {
  const map = new Map<string, T>()
  for (const record of records) map.set(record.id, record)
  return map
}

/** A service by id, by name, or by name@version; undefined when there is none. */
export function findService(snapshot: Snapshot, idOrName: string): ServiceRecord | undefined {
  const { servicesById, servicesByName, servicesByVersion } = snapshot
  return servicesById.get(idOrName) ?? servicesByName.get(idOrName) ?? servicesByVersion.get(idOrName)
}

function isPreferred(a: ServiceRecord, b: ServiceRecord): boolean {
  const rank = rankOf(a) - rankOf(b)
  return rank === 0 ? compareVersions(a.version, b.version) > 0 : rank < 0
}

/** Nobody comes to a pre-release without asking for it, while there is a release. */
function rankOf({ status, version }: ServiceRecord): number {
  if (!takesCalls(status)) return 4
  return (isRelease(version) ? 0 : 2) + (status === 'active' ? 0 : 1)
}
