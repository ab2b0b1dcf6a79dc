import type { ListedEntry } from './listed-entry.ts'
import type { ServiceRegistration } from './registration.ts'
import type { RegistryClient } from './registry-client.ts'
import { RegistryError } from './registry-error.ts'

export interface Telling {
  /** True when the registry is likely not to have it: then it is added without a look first. */
  readonly isNew: boolean
}

/**
 * Lets a registry have a registration as it is now: adds it, unless it is retired, or replaces what is there, unless that is
 * another one's. A registry that has no routes but that of reference 004 is told once, when the service is new. Throws {@link RegistryError}, or the signal's reason.
 */
export async function tellRegistry(
  client: RegistryClient,
  registration: ServiceRegistration,
  { isNew }: Telling,
  signal: AbortSignal,
): Promise<void> {
  if (isNew && (await isAdded(client, registration, signal))) return
  try {
    const { entries } = await client.list(signal, { name: registration.name, version: registration.version })
    const entry = entries.find((each) => isSame(each, registration))
    if (entry === undefined) {
      if (!isRetired(registration)) await client.add(registration, signal)
    } else if (isOurs(entry, registration)) await client.replace(entry.id, registration, signal)
  } catch (error) {
    // What it cannot do, it cannot do later either. It may also have got the service a moment ago.
    if (error instanceof RegistryError && (error.kind === 'unsupported' || error.kind === 'taken')) return
    throw error
  }
}

/** Whether an entry is about the service of a registration. */
export function isSame(entry: Pick<ListedEntry, 'name' | 'version'>, { name, version }: ServiceRegistration): boolean {
  return entry.name === name && entry.version === version
}

/** Whether an entry came from the service of a registration; one that does not say where it came from may have. */
export function isOurs(entry: ListedEntry, { metadata }: ServiceRegistration): boolean {
  const { source, service_id: serviceId } = entry.metadata
  return (
    (source === undefined || source === metadata.source) &&
    (serviceId === undefined || serviceId === metadata.service_id)
  )
}

/** Whether a registration is of a service that takes no calls any more. */
export function isRetired({ metadata }: ServiceRegistration): boolean {
  return metadata.status === 'SERVICE_STATUS_RETIRED'
}

async function isAdded(
  client: RegistryClient,
  registration: ServiceRegistration,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await client.add(registration, signal)
    return true
  } catch (error) {
    if (error instanceof RegistryError && error.kind === 'taken') return false
    throw error
  }
}
