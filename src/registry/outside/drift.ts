import type { ListedEntry } from '../../registrations/listed-entry.ts'
import type { ServiceRegistration } from '../../registrations/registration.ts'
import { isOurs, isRetired, isSame } from '../../registrations/tell-registry.ts'

/** How what a registry has of our services differs from what they are. */
export interface Drift {
  readonly missing: readonly ServiceRegistration[]
  /** By the ids of the registry. */
  readonly changed: readonly { readonly id: string; readonly registration: ServiceRegistration }[]
  /** name@version of services that another installation registered there. */
  readonly foreign: readonly string[]
}

/**
 * Compares a list with what it should have, by the revision that was told last: a registry that does not keep it is asked for
 * nothing but presence. Retired services that it does not have, it need not have.
 */
export function driftOf(entries: readonly ListedEntry[], ours: readonly ServiceRegistration[]): Drift {
  const byKey = Map.groupBy(entries, keyOf)
  const missing: ServiceRegistration[] = []
  const changed: { id: string; registration: ServiceRegistration }[] = []
  const foreign: string[] = []
  for (const registration of ours) {
    const entry = byKey.get(keyOf(registration))?.find((each) => isSame(each, registration))
    if (entry === undefined) {
      if (!isRetired(registration)) missing.push(registration)
      continue
    }
    const { revision } = entry.metadata
    if (!isOurs(entry, registration)) foreign.push(keyOf(registration))
    else if (revision !== undefined && revision !== registration.metadata.revision) {
      changed.push({ id: entry.id, registration })
    }
  }
  return { missing, changed, foreign }
}

function keyOf({ name, version }: Pick<ListedEntry, 'name' | 'version'>): string {
  return `${name}@${version}`
}
