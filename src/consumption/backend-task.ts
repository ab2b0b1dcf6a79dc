import { attemptIdOf } from '../metering/attempt-id.ts'
import type { Answer, Provider } from '../providers/provider.ts'
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

function taskOf({ attemptId, asked }: Plan, provider: Provider): Task {
  return {
    attemptId: (number) => attemptIdOf(attemptId, number),
    prepare: ({ url }: EndpointRecord, credential) => provider.prepare(asked, { url, model: '', credential }),
  }
}

/** The adapter of a service's protocol. */
export function providerOf(service: ServiceRecord): Provider {
  const known = providers.get(service)
  if (known !== undefined) return known
  const { defaultMaxOutputTokens, endpoints } = service
  const provider = createProvider({ protocol: endpoints[0]?.protocol ?? 'openai', defaultMaxOutputTokens })
  providers.set(service, provider)
  return provider
}

/** Records are immutable, and made anew when the registry changes. */
const providers = new WeakMap<ServiceRecord, Provider>()
