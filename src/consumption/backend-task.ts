import { attemptIdOf } from '../metering/attempt-id.ts'
import type { Answer, BackendRequest, Provider, ReadRequest, StreamReader } from '../providers/provider.ts'
import { createProvider } from '../providers/providers.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import type { StreamTask, UnaryTask } from '../routing/dispatcher.ts'
import type { Plan } from './plan.ts'

/** What a plan asks of backends: one whole answer, or a stream. */
export class BackendTask implements UnaryTask<Answer>, StreamTask {
  readonly #plan: Plan
  readonly #provider: Provider

  constructor(plan: Plan) {
    this.#plan = plan
    this.#provider = providerOf(plan.service)
  }

  attemptId(number: number): string {
    return attemptIdOf(this.#plan.attemptId, number)
  }

  prepare({ url, auth, model }: EndpointRecord, credential: string | undefined): BackendRequest {
    const { asked, service } = this.#plan
    return this.#provider.prepare(asked, { url, auth, credential, model: model || ownModel(asked, service) })
  }

  read(answer: Uint8Array): Answer {
    return this.#provider.readAnswer(answer, this.#plan.asked)
  }

  openReader(): StreamReader {
    return this.#provider.openStream(this.#plan.asked)
  }
}

/**
 * What a backend is asked for whose endpoint states no model. Callers of the OpenAI API name the service, by whatever name:
 * its backend gets the one that it was registered with. Requests of the backend's own API stay as they are.
 */
function ownModel({ dialect }: ReadRequest, service: ServiceRecord): string {
  return dialect === 'openai' ? service.name : ''
}

/** The adapter of a service's protocol. */
export function providerOf(service: ServiceRecord): Provider {
  const known = providers.get(service)
  if (known !== undefined) return known
  const provider = createProvider({
    protocol: service.endpoints[0]?.protocol ?? 'openai',
    asksForUsage: !service.refusesStreamOptions,
    defaultMaxOutputTokens: service.defaultMaxOutputTokens,
    pointers: service.jsonPointers,
  })
  providers.set(service, provider)
  return provider
}

/** Records are immutable, and made anew when the registry changes. */
const providers = new WeakMap<ServiceRecord, Provider>()
