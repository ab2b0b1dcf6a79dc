import type { Service } from '../../../gen/marketplace/v1/registry_pb.ts'
import type { OriginCredential } from '../../config-parsers.ts'
import type { FieldRules } from '../../field-rules.ts'
import type { ListedEntry } from '../../registrations/listed-entry.ts'
import { type ReadRegistration, readRegistration } from '../../registrations/read-registration.ts'
import type { Listing } from '../../registrations/registry-client.ts'
import { describeError } from '../../storage/postgres.ts'
import type { StatedLife } from '../lifecycle-steps.ts'
import { newServiceRecord } from '../service-message.ts'

/** A service as an outside registry states it, in a form that can be stored here. */
export interface StatedService {
  /** name@version: what is the same here and there. */
  readonly key: string
  /** Without an owner; its endpoints have the credentials that the gate has for them, and no others. */
  readonly service: Service
  readonly life: StatedLife
  readonly origin: { readonly registry: string; readonly id: string; readonly providerId: string }
}

/** What a registry lists. */
export interface StatedList {
  readonly services: readonly StatedService[]
  /** Why an entry cannot be followed, by key: what is here of it stays as it is. */
  readonly unreadable: ReadonlyMap<string, string>
  /** False when things in the list could not be told apart: then what is missing may be one of them. */
  readonly isWhole: boolean
}

export interface ListReading {
  /** URL of the registry. */
  readonly registry: string
  readonly credentials: readonly OriginCredential[]
  /** Of Service. */
  readonly rules: FieldRules
  /** Whether a service was registered here, by its id: what was told to the registry comes back from it. */
  readonly isOwn: (serviceId: string) => boolean
  /** Endpoints of what was taken over before, by key; they stand when the registry tells none. */
  readonly endpointsOf: (key: string) => Service['endpoints']
}

/**
 * What a list states. Own services that come back are left out, and so is what the registry has from another one: two that
 * follow each other would keep alive for ever what a third one gave up.
 */
export function statedList({ entries, nameless }: Listing, reading: ListReading): StatedList {
  const services = new Map<string, StatedService>()
  const unreadable = new Map<string, string>()
  const keys = new Map(entries.map((entry) => [entry.id, keyOf(entry)]))
  for (const entry of entries) {
    const key = keyOf(entry)
    if (services.has(key) || unreadable.has(key)) {
      unreadable.set(key, 'is listed twice')
      services.delete(key)
      continue
    }
    try {
      const read = readRegistration(entry, reading.rules, reading.endpointsOf(key))
      if (read.isSecondHand || reading.isOwn(read.serviceId)) continue
      services.set(key, statedService(entry, read, keys, reading))
    } catch (error) {
      unreadable.set(key, describeError(error))
    }
  }
  return { services: [...services.values()], unreadable, isWhole: nameless === 0 }
}

function statedService(
  entry: ListedEntry,
  { service, life }: ReadRegistration,
  keys: ReadonlyMap<string, string>,
  { registry, credentials }: ListReading,
): StatedService {
  const endpoints = service.endpoints.map((endpoint) => {
    const { origin } = new URL(endpoint.url)
    const credentialRef = credentials.find((each) => each.origin === origin)?.reference ?? ''
    return { ...endpoint, id: '', credentialRef }
  })
  const stated = { ...service, endpoints }
  // Refuses what contradicts the protocol, and a price without a model, before anything of the list is stored.
  newServiceRecord(stated, () => '', 0)
  const { deprecation } = life
  return {
    key: keyOf(entry),
    service: stated,
    life: {
      ...life,
      deprecation: deprecation && { ...deprecation, successor: successorHere(deprecation.successor, keys) },
    },
    origin: { registry, id: entry.id, providerId: entry.providerId },
  }
}

/** Ids of the registry mean nothing here. */
function successorHere(successor: string, keys: ReadonlyMap<string, string>): string {
  const named = keys.get(successor) ?? successor
  return named.length > longestSuccessor ? '' : named
}

const longestSuccessor = 179

function keyOf({ name, version }: ListedEntry): string {
  return `${name}@${version}`
}
