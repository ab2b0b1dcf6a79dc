import { attemptIdOf } from '../metering/attempt-id.ts'
import type { Answer, Provider, ReadRequest } from '../providers/provider.ts'
import { createProvider } from '../providers/providers.ts'
import type { EndpointRecord, ServiceRecord } from '../registry/records.ts'
import type { StreamTask, Task, UnaryTask } from '../routing/dispatcher.ts'
import type { Plan } from './plan.ts'

/** What a plan asks of backends, for one whole answer. */
export function unaryTask(plan: Plan): UnaryTask<Answer> {
  const provider = providerOf(plan.service)
  return { ...taskOf(plan, provider), read: (answer) => provider.readAnswer(answer, plan.asked) }
}

/** The same for a stream. */
export function streamTask(plan: Plan): StreamTask {
  const provider = providerOf(plan.service)
  return { ...taskOf(plan, provider), openReader: () => provider.openStream(plan.asked) }
}

function taskOf({ attemptId, asked, service }: Plan, provider: Provider): Task {
  return {
    attemptId: (number) => attemptIdOf(attemptId, number),
    prepare: ({ url, auth, model }: EndpointRecord, credential) =>
      provider.prepare(asked, { url, auth, credential, model: model || ownModel(asked, service) }),
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
