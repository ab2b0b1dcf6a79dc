import { isDeepStrictEqual } from 'node:util'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import {
  type TrafficSplit as TrafficSplitMessage,
  TrafficSplitSchema,
} from '../../gen/marketplace/v1/traffic_split_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { actorOf } from '../control/actor.ts'
import { recordChange } from '../control/record-change.ts'
import { resourceJson } from '../control/resource-json.ts'
import { checkEtag, etagOf } from '../etag.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql, Transaction } from '../storage/postgres.ts'
import { lockName } from './name-owners.ts'
import { serviceNotFound } from './not-found.ts'
import { invalid, missing } from './price-message.ts'
import { checkReach } from './service-access.ts'
import type { ServiceLookup } from './service-lookup.ts'
import type { SnapshotSource } from './snapshot.ts'
import { lockSplit, putSplit } from './split-store.ts'
import type { TrafficSplitRecord } from './traffic-split.ts'

export interface SplitHandlersOptions {
  readonly sql: Sql
  readonly snapshots: SnapshotSource
  readonly serviceOf: ServiceLookup
}

/** The RPCs of marketplace.v1.Registry that are about traffic splits. */
export function createSplitHandlers(
  options: SplitHandlersOptions,
): Pick<Handlers<typeof Registry.method>, 'setTrafficSplit' | 'getTrafficSplit'> {
  const { sql, snapshots, serviceOf } = options

  async function set(tx: Transaction, { name, shares, sticky, etag }: TrafficSplitMessage, call: Call) {
    const owners = await lockName(tx, name)
    if (owners.length === 0) throw serviceNotFound(name, 'split.name')
    for (const owner of owners) checkReach(call.principal, Registry.method.setTrafficSplit, owner, 'split.name')
    const known = await lockSplit(tx, name)
    checkEtag(etag, etagOf(known?.revision ?? 0), 'split.etag')
    const wanted = { name, sticky, shares: shares.map(({ version, weight }) => ({ version, weight })) }
    const split = { ...wanted, revision: (known?.revision ?? 0) + 1 }
    const isRemoved = shares.length === 0
    if (isSame(known ?? none, wanted)) return known?.shares.length ? known : undefined
    await putSplit(tx, split)
    await recordChange(tx, actorOf(call), {
      type: isRemoved ? 'traffic_split.removed' : 'traffic_split.set',
      id: name,
      organizationId: owners[0] ?? '',
      before: known?.shares.length ? resourceJson(TrafficSplitSchema, splitMessage(known)) : undefined,
      after: isRemoved ? undefined : resourceJson(TrafficSplitSchema, splitMessage(split)),
    })
    return isRemoved ? undefined : split
  }

  return {
    async setTrafficSplit({ split }, call) {
      if (split === undefined) throw missing('split')
      const { name } = split
      const seen = new Set<string>()
      for (const [index, { version }] of split.shares.entries()) {
        const field = `split.shares[${index}].version`
        if (seen.has(version)) throw invalid(field, 'must be named once', 'unique')
        seen.add(version)
        await serviceOf(`${name}@${version}`, field)
      }
      const stored = await storing(() => sql.begin((tx) => set(tx, split, call)))
      await snapshots.refresh()
      return stored === undefined ? { name } : splitMessage(stored)
    },

    async getTrafficSplit({ name }) {
      await serviceOf(name, 'name')
      const split = snapshots.current().splits.get(name)
      return split === undefined ? { name } : splitMessage(split)
    },
  }
}

/** What a split without shares says, sticky or not, is that there is none. */
function isSame(one: Wanted, other: Wanted): boolean {
  const isSticky = (split: Wanted): boolean => split.shares.length > 0 && split.sticky
  return isSticky(one) === isSticky(other) && isDeepStrictEqual(one.shares, other.shares)
}

type Wanted = Pick<TrafficSplitRecord, 'shares' | 'sticky'>

const none: Wanted = { shares: [], sticky: false }

function splitMessage({
  name,
  shares,
  sticky,
  revision,
}: TrafficSplitRecord): MessageInitShape<typeof TrafficSplitSchema> {
  return { name, shares: [...shares], sticky, etag: etagOf(revision) }
}
