import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code } from '@connectrpc/connect'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { PolicyMode, PolicyService } from '../../gen/marketplace/v1/policies_pb.ts'
import { type ContentAction, ContentKind, type PolicySpecSchema } from '../../gen/marketplace/v1/policy_pb.ts'
import { eventually } from './eventually.ts'
import { chat } from './payloads.ts'
import { type PostgresServer, startPostgresServer } from './postgres-server.ts'
import { type ProviderAnswer, type ProviderServer, startProviderServer } from './provider-server.ts'
import { refusal } from './refusal.ts'
import { makeTenant, type Tenant } from './tenant.ts'
import { startTollgate, type Tollgate } from './tollgate.ts'

export type Spec = MessageInitShape<typeof PolicySpecSchema>

export const adminKey = 'an-administrator-key-for-tests-only-0001'
/** What policies of content look for. */
export const address = 'bob@example.org'

/** Two gateways on one Postgres, a backend that tells what it was sent, and a tenant with ample limits. */
export class PolicyWorld {
  readonly postgres: PostgresServer
  readonly backend: ProviderServer
  readonly first: Tollgate
  readonly second: Tollgate
  readonly tenant: Tenant
  readonly #closers: readonly (() => Promise<unknown>)[]
  #made = 0

  private constructor(
    parts: Pick<PolicyWorld, 'postgres' | 'backend' | 'first' | 'second' | 'tenant'>,
    closers: readonly (() => Promise<unknown>)[],
  ) {
    this.postgres = parts.postgres
    this.backend = parts.backend
    this.first = parts.first
    this.second = parts.second
    this.tenant = parts.tenant
    this.#closers = closers
  }

  static async start(): Promise<PolicyWorld> {
    const closers: (() => Promise<unknown>)[] = []
    try {
      const postgres = await startPostgresServer({ migrated: false })
      closers.unshift(() => postgres.stop())
      const backend = await startProviderServer(({ path, body }) => answerOf(path, JSON.stringify(body)))
      closers.unshift(() => backend.close())
      const env = { DATABASE_URL: postgres.url, TOLLGATE_ADMIN_KEY: adminKey }
      const first = await startTollgate({ command: 'serve', env })
      closers.unshift(() => first.stop())
      const second = await startTollgate({ command: 'serve', env })
      closers.unshift(() => second.stop())
      const ample = { requestsPerSecond: 1_000_000n, requestBurst: 1_000_000n, tokensPerMonth: 1_000_000_000n }
      const tenant = await makeTenant(first, adminKey, 'chat', `${backend.url}/v1`, ample)
      const world = new PolicyWorld({ postgres, backend, first, second, tenant }, closers)
      await eventually(() => world.route(second, 'hello'))
      return world
    } catch (error) {
      for (const close of closers) await close()
      throw error
    }
  }

  async close(): Promise<void> {
    for (const close of this.#closers) await close()
  }

  /** No policy is in force any more. */
  async disableAll(): Promise<void> {
    for (const { id } of (await this.policies().listPolicies({})).policies) {
      await this.policies().disablePolicy({ policyId: id })
    }
    await eventually(() => this.route(this.second, `hello ${address}`))
    this.backend.received.length = 0
  }

  policies(gateway = this.first) {
    return gateway.client(PolicyService, adminKey)
  }

  route(gateway: Tollgate, content: string, more: { idempotencyKey?: string } = {}) {
    const request = { serviceId: this.tenant.serviceId, payload: chat(content), ...more }
    return gateway.client(ConsumptionService, this.tenant.key).routeRequest(request)
  }

  /** Makes a policy and puts it in force, through the first gateway; returns its id. */
  async enforce(spec: Spec, mode: PolicyMode = PolicyMode.ENFORCE): Promise<string> {
    this.#made += 1
    const { id } = await this.policies().createPolicy({ policy: { name: `policy-${this.#made}` }, spec })
    await this.policies().activatePolicy({ policyId: id, mode })
    return id
  }

  /** Waits until the second gateway follows. */
  untilDenied(content = `hello ${address}`): Promise<unknown> {
    return eventually(async () => (await refusal(this.route(this.second, content))).code === Code.PermissionDenied)
  }
}

/** A rule about {@link address}. */
export function emails(action: ContentAction): Spec {
  return { rule: { case: 'content', value: { kinds: [ContentKind.EMAIL], action } } }
}

function answerOf(path: string, body: string): ProviderAnswer {
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }
  const head = { id: 'x', created: 1, model: 'chat', usage }
  const message = { role: 'assistant', content: 'ok' }
  if (path.endsWith('/embeddings')) {
    return { status: 200, body: { ...head, object: 'list', data: [{ object: 'embedding', index: 0, embedding: [1] }] } }
  }
  if (path.endsWith('/responses')) {
    const said = { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'ok' }] }
    const counted = { input_tokens: 1, output_tokens: 1, total_tokens: 2 }
    return { status: 200, body: { ...head, object: 'response', status: 'completed', output: [said], usage: counted } }
  }
  if (path.endsWith('/chat/completions') && body.includes('"stream":true')) {
    const chunk = (choices: object[], more: object = {}): string =>
      `data: ${JSON.stringify({ ...head, usage: null, object: 'chat.completion.chunk', choices, ...more })}\n\n`
    const events = [
      chunk([{ index: 0, delta: message, finish_reason: null }]),
      chunk([{ index: 0, delta: {}, finish_reason: 'stop' }]),
      chunk([], { usage }),
      'data: [DONE]\n\n',
    ]
    return { events, failure: '', delivered: 1 }
  }
  const choice = path.endsWith('/chat/completions') ? { message } : { text: 'ok' }
  return { status: 200, body: { ...head, choices: [{ index: 0, finish_reason: 'stop', ...choice }] } }
}
