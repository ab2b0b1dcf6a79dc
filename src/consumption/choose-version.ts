import type { Snapshot } from '../registry/snapshot.ts'
import { chooseShare } from '../registry/traffic-split.ts'
import type { GateRequest } from './gate.ts'

/**
 * The call as it goes on: to the version that the traffic split of its name gives it, once and for all, so that attempts and
 * fallbacks are of that version. A call to a name without a split, or to an id or a version, is as it was.
 */
export function chooseVersion(snapshot: Snapshot, request: GateRequest, random: () => number): GateRequest {
  const name = request.serviceId
  const split = snapshot.splits.get(name)
  if (split === undefined) return request
  const versionOf = (version: string) => snapshot.servicesByVersion.get(`${name}@${version}`)
  const chosen = chooseShare(split, versionOf, request.consumerId, random)
  return chosen === undefined ? request : { ...request, serviceId: chosen.id, splitName: name }
}
