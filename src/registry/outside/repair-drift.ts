import { create } from '@bufbuild/protobuf'
import { ServiceSchema } from '../../../gen/marketplace/v1/registry_pb.ts'
import type { ListedEntry } from '../../registrations/listed-entry.ts'
import { registrationOf } from '../../registrations/registration.ts'
import type { RegistryClient } from '../../registrations/registry-client.ts'
import { RegistryError } from '../../registrations/registry-error.ts'
import type { ServiceRecord } from '../records.ts'
import { serviceMessage } from '../service-message.ts'
import { driftOf } from './drift.ts'

export interface RepairOptions {
  readonly client: RegistryClient
  /** Names this installation. */
  readonly source: string
  readonly gateUrl: string | undefined
  /** Unix milliseconds. */
  readonly now: () => number
}

/** What came of a look at what the registry has of our services. */
export interface Repaired {
  /** Registrations that were told again. */
  readonly repaired: number
  /** Why some could not be, by name@version. */
  readonly failed: ReadonlyMap<string, string>
}

/** At most this many a pass: the outbox tells what changes, this only what was lost. */
const mostRepairs = 200

/**
 * Tells the registry again of own services that it lost, or has otherwise than they are. Rejects with {@link RegistryError}
 * when it fails altogether; what it refuses of one service is no reason to leave out the others.
 */
export async function repairDrift(
  { client, source, gateUrl, now }: RepairOptions,
  entries: readonly ListedEntry[],
  services: Iterable<ServiceRecord>,
  signal: AbortSignal,
): Promise<Repaired> {
  const ours = [...services]
    .filter(({ origin }) => origin === undefined)
    .map((service) => {
      const message = create(ServiceSchema, serviceMessage(service, now()))
      return registrationOf(message, { source, gateUrl, tellsEndpoints: false })
    })
  const { missing, changed, foreign } = driftOf(entries, ours)
  const failed = new Map(foreign.map((key) => [key, 'another installation registered it there']))
  const work = [
    ...missing.map((registration) => ({ registration, tell: () => client.add(registration, signal) })),
    ...changed.map(({ id, registration }) => ({ registration, tell: () => client.replace(id, registration, signal) })),
  ]
  let repaired = 0
  for (const { registration, tell } of work.slice(0, mostRepairs)) {
    try {
      await tell()
      repaired += 1
    } catch (error) {
      if (!(error instanceof RegistryError) || error.kind === 'failed') throw error
      const key = `${registration.name}@${registration.version}`
      // The outbox was faster.
      if (error.kind !== 'taken') failed.set(key, error.message)
    }
  }
  return { repaired, failed }
}
