import { ConsumerService, Tier } from '../../../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../../../gen/marketplace/v1/keys_pb.ts'
import { LimitName, LimitScope, LimitService } from '../../../gen/marketplace/v1/limits_pb.ts'
import { Registry } from '../../../gen/marketplace/v1/registry_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../../../src/practice/backend.ts'
import { startOpenAiServer } from '../../support/openai-server.ts'
import type { ProviderServer } from '../../support/provider-server.ts'
import { demoFacts, startTollgate, type Tollgate } from '../../support/tollgate.ts'

/** A gate with services for every kind of call, and consumers that differ in what they may. */
export interface World {
  readonly tollgate: Tollgate
  readonly backend: PracticeBackend
  /** Of the service for tools. */
  readonly toolServer: ProviderServer
  readonly keys: Readonly<Record<ConsumerName, string>>
  /** Calls that the gate has answered, by "<path> <status>". */
  answered(): Promise<ReadonlyMap<string, number>>
  close(): Promise<void>
}

/**
 * `rich` may do what it likes; `slow` one request a second; `empty` has no tokens left this month, `poor` no money, and
 * `idle` no grant but one.
 */
type ConsumerName = 'rich' | 'slow' | 'empty' | 'poor' | 'idle'

/** Names of services; `secret` is granted to nobody. */
export const services = {
  chat: 'sdk-chat',
  text: 'sdk-text',
  embed: 'sdk-embed',
  tools: 'sdk-tools',
  secret: 'sdk-secret',
} as const

export async function startWorld(): Promise<World> {
  const backend = await startPracticeBackend()
  const toolServer = await startOpenAiServer()
  const tollgate = await startTollgate({ command: 'dev' })
  const { adminKey = '' } = await demoFacts(tollgate)
  const registry = tollgate.client(Registry, adminKey)
  const ids: Record<string, string> = {}
  const urls = Object.entries({ ...paths, secret: paths.chat }).map(([kind, path]) => [kind, backend.url + path])
  for (const [kind = '', url = ''] of [...urls, ['tools', toolServer.url + paths.chat]]) {
    const { id } = await registry.registerService({
      service: {
        name: `sdk-${kind}`,
        version: '1.0.0',
        endpoints: [{ url }],
        pricing: { currency: 'USD', model: { case: 'perRequest', value: { requestNanos: 1_000_000n } } },
      },
    })
    ids[kind] = id
  }
  const { chat = '', text = '', embed = '', tools = '' } = ids
  const consumers = tollgate.client(ConsumerService, adminKey)
  const limits = tollgate.client(LimitService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'sdk' } })

  async function consumer(
    name: ConsumerName,
    grantedServices: string[],
    overrides: { requestsPerSecond?: bigint; requestBurst?: bigint; tokensPerMonth?: bigint } = {},
  ): Promise<{ id: string; key: string }> {
    const { id } = await consumers.createConsumer({
      consumer: { name, organizationId, tier: Tier.ENTERPRISE, grantedServices, overrides },
    })
    return { id, key: (await tollgate.client(KeyService, adminKey).createKey({ consumerId: id })).key }
  }

  const rich = await consumer('rich', [chat, text, embed, tools])
  const slow = await consumer('slow', [chat], { requestsPerSecond: 1n, requestBurst: 1n })
  const empty = await consumer('empty', [chat], { tokensPerMonth: 1n })
  const poor = await consumer('poor', [chat])
  const idle = await consumer('idle', [embed])
  const budget = { name: LimitName.COST_PER_MONTH, amount: 1n, currency: 'USD' }
  await limits.setLimit({ limit: { scope: LimitScope.CONSUMER, subjectId: poor.id, ...budget } })
  return {
    tollgate,
    backend,
    toolServer,
    keys: { rich: rich.key, slow: slow.key, empty: empty.key, poor: poor.key, idle: idle.key },
    async answered() {
      const page = await (await fetch(`${tollgate.address}/metrics`)).text()
      const counted = page.matchAll(/^http_requests_total\{method="\w+",path="([^"]+)",status="(\d+)"\} (\d+)$/gm)
      return new Map([...counted].map(([, path, status, count]) => [`${path} ${status}`, Number(count)]))
    },
    async close() {
      await tollgate.stop()
      await backend.close()
      await toolServer.close()
    },
  }
}

const paths = { chat: '/v1/chat/completions', text: '/v1/completions', embed: '/v1/embeddings' } as const
