import { type CelInput, type CelMap, celList, celMap } from '@bufbuild/cel'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import type { Bindings } from './cel/compile.ts'
import { bool, int, listOf, mapOf, string, structOf, type Type, timestamp } from './cel/types.ts'
import type { CallFacts, ConsumerFacts, OrganizationFacts, ServiceFacts } from './facts.ts'
import { RequestValues } from './request-values.ts'

const serviceType = structOf('service', {
  id: string,
  name: string,
  version: string,
  status: string,
  classification: string,
  regions: listOf(string),
  certifications: listOf(string),
  tags: listOf(string),
  labels: mapOf(string, string),
})

/** Variables of expressions about calls; docs/policy.md lists them. */
export const callVariables: ReadonlyMap<string, Type> = new Map([
  [
    'consumer',
    structOf('consumer', {
      id: string,
      project_id: string,
      name: string,
      tier: string,
      status: string,
      clearance: string,
      home_region: string,
    }),
  ],
  ['organization', structOf('organization', { id: string })],
  ['service', serviceType],
  [
    'request',
    structOf('request', {
      model: string,
      kind: string,
      stream: bool,
      size: int,
      input_tokens: int,
      max_output_tokens: int,
      cost_nanos: int,
      currency: string,
      metadata: mapOf(string, string),
      key_id: string,
      user_agent: string,
      text: string,
    }),
  ],
  ['address', string],
  ['time', timestamp],
])

/** Variables of expressions about services. */
export const serviceVariables: ReadonlyMap<string, Type> = new Map([
  ['service', serviceType],
  ['time', timestamp],
])

type Values = CelMap

const consumers = new WeakMap<ConsumerFacts, Values>()
const organizations = new WeakMap<OrganizationFacts, Values>()
const services = new WeakMap<ServiceFacts, Values>()

/** Values of the variables for one call. `text` is what the request says, and is asked when an expression reads it. */
export function bindingsOf(facts: CallFacts, text: () => string): Bindings {
  return new CallBindings(facts, text)
}

/** Each value is made when an expression names the variable: most name one or two, and a timestamp is dear. */
class CallBindings implements Bindings {
  readonly [name: string]: CelInput
  readonly #facts: CallFacts
  readonly #text: () => string
  #request: Values | undefined

  constructor(facts: CallFacts, text: () => string) {
    this.#facts = facts
    this.#text = text
  }

  get consumer(): Values {
    return kept(consumers, this.#facts.consumer, consumerValues)
  }

  get organization(): Values {
    return kept(organizations, this.#facts.organization, organizationValues)
  }

  get service(): Values {
    return kept(services, this.#facts.service, serviceValues)
  }

  get request(): Values {
    this.#request ??= celMap(new RequestValues(this.#facts.request, this.#text))
    return this.#request
  }

  get address(): string {
    return this.#facts.address
  }

  get time(): CelInput {
    return timestampFromMs(this.#facts.timeMs)
  }
}

function consumerValues({ id, projectId, name, tier, status, clearance, homeRegion }: ConsumerFacts): Values {
  return valuesOf([
    ['id', id],
    ['project_id', projectId],
    ['name', name],
    ['tier', tier],
    ['status', status],
    ['clearance', clearance],
    ['home_region', homeRegion],
  ])
}

function organizationValues({ id }: OrganizationFacts): Values {
  return valuesOf([['id', id]])
}

function serviceValues(service: ServiceFacts): Values {
  return valuesOf([
    ['id', service.id],
    ['name', service.name],
    ['version', service.version],
    ['status', service.status],
    ['classification', service.classification],
    ['regions', celList(service.regions)],
    ['certifications', celList(service.certifications)],
    ['tags', celList(service.tags)],
    ['labels', celMap(new Map(Object.entries(service.labels)))],
  ])
}

function valuesOf(entries: readonly (readonly [string, CelInput])[]): Values {
  return celMap(new Map(entries))
}

function kept<K extends object>(map: WeakMap<K, Values>, key: K, make: (key: K) => Values): Values {
  const known = map.get(key)
  if (known !== undefined) return known
  const made = make(key)
  map.set(key, made)
  return made
}
