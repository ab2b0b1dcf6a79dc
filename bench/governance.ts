import { callGate } from './call-gate.ts'
import { services } from './services.ts'

/** How much of governing is on. */
export interface Governance {
  readonly env: Readonly<Record<string, string>>
  /** Whether services have prices, policies are in force, and the key, the consumer and the organization have limits. */
  readonly isOn: boolean
}

/** Everything, as in production: this is what the figures of the gate are of. */
export const governed: Governance = { env: { LOG_LEVEL: 'info' }, isOn: true }

/** Nothing that can be switched off: authentication, routing, breaker, usage and its record are left. */
export const ungoverned: Governance = {
  env: {
    ENABLE_RBAC: 'false',
    ENABLE_RATE_LIMITING: 'false',
    ENABLE_POLICY_VALIDATION: 'false',
    POLICY_DECISIONS_PER_SECOND: '0',
    LOG_LEVEL: 'silent',
  },
  isOn: false,
}

/** An administrator's way to a gate. */
export interface Administration {
  readonly origin: string
  readonly adminKey: string
}

/** Who calls, and the service "bench". */
export interface Tenant {
  readonly serviceId: string
  readonly consumerId: string
  readonly key: string
}

const price = {
  currency: 'USD',
  perToken: { inputNanosPerMillion: '2500000000', outputNanosPerMillion: '10000000000' },
}

/** Metadata that the policy of {@link governed} refuses: whoever sends it sees whether policies decide. */
export const refusedMetadata = { banned: 'yes' }

const policies = [
  { name: 'nobody-banned', spec: { access: { allowIf: '!("banned" in request.metadata)' } } },
  { name: 'no-huge-calls', spec: { cost: { maxInputTokens: '1000000', maxOutputTokens: '100000' } } },
]

/** Registers the services and makes who calls them, with limits that every call is held against and none reaches. */
export async function provision(
  { origin, adminKey }: Administration,
  backendUrl: string,
  { isOn }: Governance,
): Promise<Tenant> {
  const call = (method: string, request: object): Promise<Record<string, unknown>> =>
    callGate(origin, adminKey, method, request)
  const ids = new Map<string, unknown>()
  for (const { name, target } of Object.values(services)) {
    const endpoints = [{ url: `${backendUrl}${target}`, protocol: 'PROTOCOL_OPENAI' }]
    const service = { name, version: '1.0.0', endpoints, ...(isOn ? { pricing: price } : {}) }
    ids.set(name, (await call('Registry/RegisterService', { service })).id)
  }
  const organization = await call('ConsumerService/CreateOrganization', { organization: { name: 'bench' } })
  const consumer = await call('ConsumerService/CreateConsumer', {
    consumer: {
      organizationId: organization.id,
      name: 'bench',
      tier: 'TIER_ENTERPRISE',
      grantedServices: ['*'],
      overrides: { requestsPerSecond: '1000000', requestBurst: '1000000', tokensPerMonth: '1000000000000' },
    },
  })
  const { key, apiKey } = await call('KeyService/CreateKey', { consumerId: consumer.id, name: 'bench' })
  if (isOn) {
    for (const { name, spec } of policies) {
      await call('PolicyService/CreatePolicy', { policy: { name }, spec })
      await call('PolicyService/ActivatePolicy', { policyId: name, mode: 'POLICY_MODE_ENFORCE' })
    }
    const limits = limitsOf(organization.id, consumer.id, Object(apiKey).id)
    for (const limit of [...limits, closing(ids.get(services.closed.name))])
      await call('LimitService/SetLimit', { limit })
  }
  return { serviceId: String(ids.get(services.plain.name)), consumerId: String(consumer.id), key: String(key) }
}

/** Beside the consumer's rate and month quota, which its overrides set. */
function limitsOf(organizationId: unknown, consumerId: unknown, keyId: unknown): object[] {
  const rate = { name: 'LIMIT_NAME_REQUESTS_PER_SECOND', amount: '1000000' }
  const budget = { name: 'LIMIT_NAME_COST_PER_MONTH', amount: '8000000000000000', currency: 'USD' }
  const open = { name: 'LIMIT_NAME_CONCURRENT_REQUESTS', amount: '100000' }
  return [
    { scope: 'LIMIT_SCOPE_KEY', subjectId: keyId, ...rate },
    { scope: 'LIMIT_SCOPE_CONSUMER', subjectId: consumerId, ...open },
    { scope: 'LIMIT_SCOPE_ORGANIZATION', subjectId: organizationId, ...rate },
    { scope: 'LIMIT_SCOPE_ORGANIZATION', subjectId: organizationId, ...budget },
  ]
}

/** No call to the service passes: whoever tries sees whether limits decide. */
function closing(serviceId: unknown): object {
  return { scope: 'LIMIT_SCOPE_SERVICE', subjectId: serviceId, name: 'LIMIT_NAME_TOKENS_PER_MONTH', amount: '0' }
}
