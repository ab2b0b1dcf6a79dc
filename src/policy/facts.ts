/**
 * What policies know of a call, beside what it sends. Plain data without prompts: it is recorded, so that other policies can
 * be tried on it later, and it comes over the wire, where somebody asks about a call of theirs.
 */
import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'

export interface CallFacts {
  readonly consumer: ConsumerFacts
  readonly organization: OrganizationFacts
  readonly service: ServiceFacts
  readonly request: RequestFacts
  /** Of the caller, without port; empty when unknown. */
  readonly address: string
  /** Unix milliseconds. */
  readonly timeMs: number
}

export interface ConsumerFacts {
  readonly id: string
  /** Empty when it belongs to none. */
  readonly projectId: string
  readonly name: string
  readonly tier: string
  readonly status: string
  /** Name of a data classification; empty when none is stated, which counts as "public". */
  readonly clearance: string
  /** Empty when none is stated. */
  readonly homeRegion: string
}

export interface OrganizationFacts {
  readonly id: string
}

export interface ServiceFacts {
  readonly id: string
  readonly name: string
  readonly version: string
  readonly status: string
  /** Name of a data classification; empty when none is stated, which counts as "public". */
  readonly classification: string
  readonly regions: readonly string[]
  readonly certifications: readonly string[]
  readonly tags: readonly string[]
  readonly labels: Readonly<Record<string, string>>
}

export interface RequestFacts {
  /** Empty when the request names none. */
  readonly model: string
  readonly kind: string
  readonly stream: boolean
  /** Bytes of the payload. */
  readonly size: number
  readonly inputTokens: number
  readonly maxOutputTokens: number
  /** What the call would reserve, in nano-units of `currency`; 0 without a price. */
  readonly costNanos: number
  readonly currency: string
  readonly metadata: Readonly<Record<string, string>>
  /** Empty for a caller without a key. */
  readonly keyId: string
  readonly userAgent: string
}

/** A request of which nothing is known. */
export const noRequest: RequestFacts = {
  model: '',
  kind: '',
  stream: false,
  size: 0,
  inputTokens: 0,
  maxOutputTokens: 0,
  costNanos: 0,
  currency: '',
  metadata: {},
  keyId: '',
  userAgent: '',
}

// Records never change, and are replaced as a whole: what follows from one is worked out once.
const consumers = new WeakMap<ConsumerRecord, ConsumerFacts>()
const organizations = new WeakMap<ConsumerRecord, OrganizationFacts>()
const services = new WeakMap<ServiceRecord, ServiceFacts>()

export function consumerFacts(record: ConsumerRecord): ConsumerFacts {
  return kept(consumers, record, ({ id, projectId = '', name, tier, status, clearance, homeRegion }) => ({
    id,
    projectId,
    name,
    tier,
    status,
    clearance,
    homeRegion,
  }))
}

export function organizationFacts(record: ConsumerRecord): OrganizationFacts {
  return kept(organizations, record, ({ organizationId }) => ({ id: organizationId }))
}

export function serviceFacts(record: ServiceRecord): ServiceFacts {
  return kept(services, record, ({ id, name, version, status, profile: { tags, labels, compliance } }) => {
    const { classification = '', regions, certifications } = compliance
    return { id, name, version, status, classification, regions, certifications, tags, labels }
  })
}

function kept<K extends object, V>(map: WeakMap<K, V>, key: K, make: (key: K) => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const made = make(key)
  map.set(key, made)
  return made
}
