import { serviceNotFound } from './not-found.ts'
import type { ServiceRecord } from './records.ts'
import { findService, type SnapshotSource } from './snapshot.ts'

/** The service of an id or a name. Throws SERVICE_NOT_FOUND; `field` names the request field that holds it, where it is one of several. */
export type ServiceLookup = (idOrName: string, field?: string) => Promise<ServiceRecord>

/** Looks into the snapshot, and again into a fresh one: what is not there may have been registered elsewhere a moment ago. */
export function createServiceLookup(snapshots: SnapshotSource): ServiceLookup {
  return async (idOrName, field) => {
    const known = findService(snapshots.current(), idOrName)
    if (known !== undefined) return known
    await snapshots.refresh()
    const service = findService(snapshots.current(), idOrName)
    if (service === undefined) throw serviceNotFound(idOrName, field)
    return service
  }
}
