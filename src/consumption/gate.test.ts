import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { keyOf, testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { through } from '../../test/support/through-limits.ts'
import { usageEvent } from '../../test/support/usage-events.ts'
import { TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import { limitsOfCall } from '../limits/call-limits.ts'
import { unitsOf } from '../limits/limit-keys.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import type { Admission, Limits, PeriodSeed, Settled } from '../limits/limits.ts'
import { createLocalLimits } from '../limits/local-limits.ts'
import { noTokens, type UsageEvent } from '../metering/usage-event.ts'
import { createBuiltinPolicyEngine } from '../policy/policy-engine.ts'
import type { ConsumerRecord, FallbackCondition, ServiceRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import type { Attempt, Dispatcher } from '../routing/dispatcher.ts'
import { createGate, type GateOptions, type GateRefusal, type GateRequest } from './gate.ts'
import { claimOf } from './idempotency.ts'
import { createResponseCache } from './response-cache.ts'

const log = pino({ level: 'silent' })
const organizationId = newId()
const service = serviceRecord({
  id: newId(),
  endpoints: [endpointRecord({ id: newId() })],
  prices: [
    { version: 'v1', currency: 'USD', effectiveFromMs: 0, model: { kind: 'per_request', requestNanos: 1_000_000 } },
  ],
  defaultMaxOutputTokens: 100,
})
const consumer: ConsumerRecord = {
  id: newId(),
  organizationId,
  name: 'consumer',
  tier: 'premium',
  status: 'active',
  grantedServices: new Set(['*']),
  overrides: {},
  projectId: undefined,
  clearance: 'internal',
  homeRegion: '',
}
const answer = Buffer.from('{"model":"m","choices":[{"message":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}')

const plain: GateRequest = {
  consumerId: consumer.id,
  serviceId: service.id,
  payload: chat('x'),
  metadata: {},
  idempotencyKey: '',
  dialect: 'native',
}

let folder: string
let limits: Limits
let dispatched = 0
let rules: LimitRule[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-gate-'))
  // A ledger that has nothing yet: all that counts is on its way.
  const seed: PeriodSeed = async (limit, waiting) =>
    waiting.reduce((sum, event) => sum + (unitsOf(limit, event) ?? 0), 0)
  limits = await createLocalLimits({ folder, seed, log })
  dispatched = 0
  rules = []
})

afterEach(async () => {
  await limits.close()
  await rm(folder, { recursive: true, force: true })
})

type Dispatching = Pick<Dispatcher, 'dispatch'>

const dispatcher: Dispatching = {
  async dispatch(_service, task, { signal }) {
    if (signal.aborted) return { attempts: [], error: signal.reason }
    dispatched += 1
    return { attempts: [attempt(1)], value: task.read(answer) }
  },
}

function attempt(number: number, error?: TollgateError): Attempt {
  const facts = { startMs: 0, headersMs: 1, firstTokenMs: undefined, status: 200, receivedBytes: 1 }
  return { ...facts, id: String(number), number, endpointId: `endpoint-${number}`, durationMs: number, error }
}

function snapshotOf(changes: { services?: ServiceRecord[]; consumers?: ConsumerRecord[] } = {}) {
  const parts = { services: [service], consumers: [consumer], limitRules: rules, ...changes }
  return { current: () => buildSnapshot({ version: 1, nowMs: 0, ...parts }) }
}

const silent: GateOptions['observer'] = {
  refused: () => {},
  recorded: () => {},
  thresholdPassed: () => {},
  policyDecided: () => {},
  cacheAsked: () => {},
}

function route(
  {
    dispatcher: dispatching = dispatcher,
    ...changes
  }: Omit<Partial<GateOptions>, 'dispatcher'> & {
    dispatcher?: Dispatching
  },
  signal = new AbortController().signal,
  asked: Partial<GateRequest> = {},
  headers: Readonly<Record<string, string>> = {},
) {
  const gate = createGate({
    snapshots: snapshotOf(),
    policy: createBuiltinPolicyEngine(),
    limits,
    cache: createResponseCache(0, Date.now),
    dispatcher: {
      ...dispatching,
      open: async () => ({ attempts: [], error: new TollgateError('INTERNAL', 'no streams here') }),
    },
    openCalls: { follow: () => () => {} },
    rateLimiting: true,
    observer: silent,
    log,
    now: Date.now,
    newId,
    ...changes,
  })
  const principal = { ...keyOf({ id: consumer.id, organizationId }), keyId: 'key' }
  const request = { ...plain, ...asked }
  return gate.route(request, testCall(principal, { id: newId(), signal, header: (name) => headers[name] }))
}

async function recorded(): Promise<UsageEvent[]> {
  const entries = await limits.usageLog.read(10, 1, new AbortController().signal)
  await limits.usageLog.acknowledge(entries)
  return entries.map(({ event }) => event)
}

/** What is used and held of the limits of that name. */
async function used(name: string): Promise<number[]> {
  const call = { consumer, serviceId: service.id, keyId: 'key', atMs: Date.now() }
  const ruled = snapshotOf().current().limitRules
  const asked = limitsOfCall(ruled, call).filter((limit) => limit.name === name)
  const states = await limits.read(asked)
  return asked.map((limit, index) => limit.capacity - (states[index]?.remaining ?? 0))
}

test('a call whose caller left during admission reaches no backend and takes nothing', async () => {
  const caller = new AbortController()
  const admit: Limits['admit'] = async (admission) => {
    const result = await limits.admit(admission)
    caller.abort(new TollgateError('CANCELLED', 'gone'))
    return result
  }
  const call = route({ limits: { ...through(limits), admit } }, caller.signal)
  await expect(call).rejects.toMatchObject({ reason: 'CANCELLED' })
  expect(dispatched).toBe(0)
  expect(await recorded()).toMatchObject([{ status: 'cancelled', attempt: 0, endpointId: '', costNanos: 0 }])
  expect(await used('tokens_per_month')).toEqual([0])
})

test('a call that needed three attempts is charged once, and each attempt has its record', async () => {
  const down = new TollgateError('BACKEND_TIMEOUT', 'slow')
  const attempts = [attempt(1, down), attempt(2, new TollgateError('BACKEND_FAILED', 'down')), attempt(3)]
  const sent: string[] = []
  const third: Dispatching = {
    async dispatch(_service, task) {
      sent.push(...attempts.map(({ number }) => task.attemptId(number)))
      return { attempts, value: task.read(answer) }
    },
  }
  const { event } = await route({ dispatcher: third })
  expect(event).toMatchObject({ attempt: 3, endpointId: 'endpoint-3', requests: 1, costNanos: 1_000_000 })
  const records = await recorded()
  expect(records).toMatchObject([
    event,
    {
      attempt: 1,
      endpointId: 'endpoint-1',
      status: 'failed',
      errorReason: 'BACKEND_TIMEOUT',
      requests: 0,
      costNanos: 0,
    },
    {
      attempt: 2,
      endpointId: 'endpoint-2',
      status: 'failed',
      errorReason: 'BACKEND_FAILED',
      requests: 0,
      costNanos: 0,
    },
  ])
  // The ledger has what the backends were told, each once.
  expect(records.map(({ id }) => id).sort()).toEqual(sent.toSorted())
  expect(event.id).toBe(sent[0])
  expect(await used('tokens_per_month')).toEqual([7])
})

test('a call that failed three times is one failed request, and costs nothing at the price in force', async () => {
  const down = new TollgateError('BACKEND_FAILED', 'down')
  const attempts = [attempt(1, down), attempt(2, down), attempt(3, down)]
  const never = { dispatch: async () => ({ attempts, error: down }) }
  await expect(route({ dispatcher: never })).rejects.toMatchObject({ reason: 'BACKEND_FAILED' })
  const free = { status: 'failed', costNanos: 0, currency: 'USD', priceVersion: 'v1' }
  expect(await recorded()).toMatchObject([
    { attempt: 3, requests: 1, ...free },
    { attempt: 1, requests: 0, ...free },
    { attempt: 2, requests: 0, ...free },
  ])
})

test('a consumer without a grant is refused, unless policy validation is switched off', async () => {
  const stranger = { ...consumer, grantedServices: new Set<string>() }
  const snapshots = snapshotOf({ consumers: [stranger] })
  await expect(route({ snapshots })).rejects.toMatchObject({ reason: 'POLICY_DENIED' })
  expect(dispatched).toBe(0)
  expect(await route({ snapshots, policy: undefined })).toMatchObject({ event: { status: 'succeeded' } })
})

test('a refusal says whose call it was', async () => {
  const refusals: GateRefusal[] = []
  const observer = { ...silent, refused: (refusal: GateRefusal) => refusals.push(refusal) }
  const broke = { ...consumer, overrides: { tokensPerMonth: 0 } }
  const snapshots = snapshotOf({ consumers: [broke] })
  await expect(route({ observer, snapshots })).rejects.toMatchObject({ reason: 'QUOTA_EXCEEDED' })
  expect(refusals).toEqual([
    {
      requestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      organizationId,
      consumerId: consumer.id,
      keyId: 'key',
      serviceId: service.id,
      tier: 'premium',
      error: expect.objectContaining({ reason: 'QUOTA_EXCEEDED' }),
    },
  ])
})

test('what an observer does to a recorded call is not the caller’s concern', async () => {
  const observer = {
    ...silent,
    recorded: () => {
      throw new Error('broken')
    },
  }
  const { event } = await route({ observer })
  expect(await recorded()).toEqual([event])
})

test('usage that could not be recorded while the caller waited is recorded later, exactly and once', async () => {
  let failures = 0
  const settle: Limits['settle'] = async (settlement) => {
    failures += 1
    if (failures <= 6) throw new TollgateError('LIMITS_UNAVAILABLE', 'away')
    return limits.settle(settlement)
  }
  const call = route({ limits: { ...through(limits), settle } })
  await expect(call).rejects.toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
  expect(await recorded()).toEqual([])
  const [event] = await eventually(async () => {
    const events = await recorded()
    return events.length > 0 && events
  })
  expect(event).toMatchObject({ status: 'succeeded', costNanos: 1_000_000, tokens: { input: 3, output: 4 } })
  expect(await used('tokens_per_month')).toEqual([7])
})

function rule(scope: LimitRule['scope'], subjectId: string, name: LimitRule['name'], amount: number): LimitRule {
  const currency = name === 'cost_per_month' ? 'USD' : undefined
  return { scope, subjectId, serviceId: undefined, name, amount, burst: undefined, currency }
}

describe('limits', () => {
  const scopes = [
    ['key', 'key'],
    ['consumer', consumer.id],
    ['organization', organizationId],
    ['service', service.id],
  ] as const
  const names = [
    ['requests_per_minute', 1, 'RATE_LIMITED'],
    ['tokens_per_minute', 60, 'RATE_LIMITED'],
    ['concurrent_requests', 1, 'RATE_LIMITED'],
    ['tokens_per_month', 60, 'QUOTA_EXCEEDED'],
    ['cost_per_month', 1_500_000, 'QUOTA_EXCEEDED'],
  ] as const

  const cases = scopes.flatMap(([scope, id]) =>
    names.map(([name, amount, reason]) => ({ scope, id, name, amount, reason })),
  )
  test.each(cases)(
    '$name of the $scope refuses the second call, which takes nothing from any scope',
    async (refusing) => {
      const ample = scopes.flatMap(([scope, id]) => names.map(([name]) => rule(scope, id, name, 1_000_000_000)))
      const others = ample.filter(({ scope, name }) => scope !== refusing.scope || name !== refusing.name)
      rules = [...others, rule(refusing.scope, refusing.id, refusing.name, refusing.amount)]
      const first = Promise.withResolvers<void>()
      const reached = Promise.withResolvers<void>()
      const slow: Dispatching = {
        async dispatch(of, task, call) {
          reached.resolve()
          await first.promise
          return dispatcher.dispatch(of, task, call)
        },
      }
      const running = route({ dispatcher: slow })
      await reached.promise
      const counters = ['tokens_per_month', 'cost_per_month', 'concurrent_requests']
      const before = await Promise.all(counters.map(used))
      const refused = await route({}).catch((error: unknown) => error)
      expect(refused).toMatchObject({
        reason: refusing.reason,
        limits: [{ limit: refusing.name, subject: `${refusing.scope}:${refusing.id}` }],
      })
      expect(await Promise.all(counters.map(used))).toEqual(before)
      first.resolve()
      await running
      expect(dispatched).toBe(1)
      expect(await used('cost_per_month')).toEqual(scopes.map(() => 1_000_000))
      expect(await used('tokens_per_month')).toEqual([7, ...scopes.map(() => 7)])
      expect(await used('concurrent_requests')).toEqual(scopes.map(() => 0))
    },
  )

  test('a budget in a currency that the service has no price in refuses the call', async () => {
    rules = [{ ...rule('organization', organizationId, 'cost_per_month', 1_000_000_000), currency: 'EUR' }]
    await expect(route({})).rejects.toMatchObject({ reason: 'PRICE_MISSING', metadata: { currency: 'EUR' } })
    const free = snapshotOf({ services: [{ ...service, prices: [] }] })
    await expect(route({ snapshots: free })).rejects.toMatchObject({ reason: 'PRICE_MISSING' })
    expect(dispatched).toBe(0)
    rules = []
    expect(await route({ snapshots: snapshotOf({ services: [{ ...service, prices: [] }] }) })).toMatchObject({
      event: { status: 'succeeded', priceVersion: '', costNanos: 0 },
    })
  })

  test('a budget that is made during a call counts that call', async () => {
    const current = { value: snapshotOf().current() }
    const slow: Dispatching = {
      async dispatch(of, task, call) {
        rules = [rule('consumer', consumer.id, 'cost_per_month', 5_000_000)]
        current.value = snapshotOf().current()
        // Somebody looks at the new counter while the call runs, so that it is known.
        expect(await used('cost_per_month')).toEqual([0])
        return dispatcher.dispatch(of, task, call)
      },
    }
    await route({ dispatcher: slow, snapshots: { current: () => current.value } })
    expect(await used('cost_per_month')).toEqual([1_000_000])
  })

  test('a call that is abandoned is recorded at what its budget reserved', async () => {
    rules = [rule('consumer', consumer.id, 'cost_per_month', 1_000_000_000)]
    const rates = { inputNanosPerMillion: 1e9, outputNanosPerMillion: 2e9, cachedInputNanosPerMillion: 1e8 }
    const dear = { ...rates, cacheWriteInputNanosPerMillion: 5e9, reasoningOutputNanosPerMillion: 9e9 }
    const price = { version: 'v1', currency: 'USD', effectiveFromMs: 0 }
    const model = { kind: 'per_token', ...dear, tiers: [] } as const
    const snapshots = snapshotOf({ services: [{ ...service, prices: [{ ...price, model }] }] })
    const admissions: Parameters<Limits['admit']>[0][] = []
    const admit: Limits['admit'] = (admission) => {
      admissions.push(admission)
      return limits.admit(admission)
    }
    await route({ snapshots, limits: { ...through(limits), admit } })
    const [admission] = admissions
    const budget = admission?.costs.find(({ limit }) => limit.unit === 'nanos')
    expect(budget?.amount).toBeGreaterThan(0)
    expect(admission?.ifAbandoned.costNanos).toBe(budget?.amount)
  })

  test('passing 80 and 100 percent of a budget is told once each', async () => {
    rules = [rule('consumer', consumer.id, 'cost_per_month', 5_000_000)]
    const told: Settled['crossed'][number][] = []
    const observer = {
      ...silent,
      thresholdPassed: (_: UsageEvent, crossing: Settled['crossed'][number]) => told.push(crossing),
    }
    for (let call = 0; call < 5; call += 1) await route({ observer })
    expect(told).toMatchObject([
      { threshold: 80, used: 4_000_000, limit: { name: 'cost_per_month' } },
      { threshold: 100, used: 5_000_000 },
    ])
  })

  test('a call that lasts into the next month is booked in the month that it was admitted in', async () => {
    const last = Date.UTC(2026, 10, 30, 23, 59, 59, 900)
    let nowMs = last
    const slow: Dispatching = {
      dispatch: (of, task, call) => {
        nowMs = last + 60_000
        return dispatcher.dispatch(of, task, call)
      },
    }
    const { event } = await route({ dispatcher: slow, now: () => nowMs })
    expect(event).toMatchObject({ startMs: last, durationMs: 60_000 })
    const states = await Promise.all(
      [last, nowMs].map((atMs) => {
        const call = { consumer, serviceId: service.id, keyId: 'key', atMs }
        return limits.read(limitsOfCall(new Map(), call).filter(({ name }) => name === 'tokens_per_month'))
      }),
    )
    expect(states.map(([state]) => 10_000_000 - (state?.remaining ?? 0))).toEqual([7, 0])
  })
})

describe('an idempotency key', () => {
  const asked = { idempotencyKey: 'order-1' }
  const anySignal = () => new AbortController().signal

  test('makes one call of many at once, and all get its answer', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => route({}, anySignal(), asked)))
    expect(dispatched).toBe(1)
    expect(new Set(answers.map(({ event }) => event.requestId)).size).toBe(1)
    expect(answers.filter(({ isReplayed }) => !isReplayed)).toHaveLength(1)
    for (const { body, charge } of answers) {
      expect(Buffer.from(body)).toEqual(answer)
      expect(charge).toMatchObject({ nanos: 1_000_000, components: [{ kind: 'request' }] })
    }
    expect(await recorded()).toHaveLength(1)
    expect(await used('tokens_per_month')).toEqual([7])
  })

  test('is refused with another payload', async () => {
    await route({}, anySignal(), asked)
    const other = route({}, anySignal(), { ...asked, payload: chat('y') })
    await expect(other).rejects.toMatchObject({
      reason: 'IDEMPOTENCY_KEY_REUSED',
      fields: [{ field: 'idempotency_key' }],
    })
    expect(dispatched).toBe(1)
  })

  test('of a call that failed is free again', async () => {
    const down = new TollgateError('BACKEND_FAILED', 'down')
    const failing = { dispatch: async () => ({ attempts: [attempt(1, down)], error: down }) }
    await expect(route({ dispatcher: failing }, anySignal(), asked)).rejects.toMatchObject({ reason: 'BACKEND_FAILED' })
    expect(await route({}, anySignal(), asked)).toMatchObject({ isReplayed: false })
    expect(await recorded()).toMatchObject([{ status: 'failed' }, { status: 'succeeded' }])
  })

  test('of an answer too large to keep makes no second call either', async () => {
    const large = Buffer.concat([answer.subarray(0, -1), Buffer.from(`,"x":"${'x'.repeat(1_048_576)}"}`)])
    const lavish: Dispatching = {
      dispatch: async (_, task) => ({ attempts: [attempt(1)], value: task.read(large) }),
    }
    expect((await route({ dispatcher: lavish }, anySignal(), asked)).body).toHaveLength(large.length)
    await expect(route({}, anySignal(), asked)).rejects.toMatchObject({ reason: 'IDEMPOTENT_ANSWER_NOT_KEPT' })
    expect(dispatched).toBe(0)
  })

  test('lets a call that waited be one of the month in which it is admitted', async () => {
    const last = Date.UTC(2026, 10, 30, 23, 59, 59, 900)
    let nowMs = last
    let tries = 0
    const admit: Limits['admit'] = async (admission) => {
      tries += 1
      if (tries > 1) return limits.admit(admission)
      nowMs = last + 60_000
      return { outcome: 'running' }
    }
    const changes = { limits: { ...through(limits), admit }, now: () => nowMs }
    const { event } = await route(changes, anySignal(), asked)
    expect(event.startMs).toBe(last + 60_000)
  })

  test('lets whoever waits go when the caller leaves', async () => {
    const caller = new AbortController()
    const never: Dispatching = { dispatch: (_service, _task, call) => aborted(call.signal) }
    const holder = new AbortController()
    const holding = route({ dispatcher: never }, holder.signal, asked)
    await eventually(async () => (await limits.admit(probe())).outcome === 'running')
    const waiting = route({}, caller.signal, asked)
    caller.abort(new TollgateError('CANCELLED', 'gone'))
    await expect(waiting).rejects.toMatchObject({ reason: 'CANCELLED' })
    holder.abort(new TollgateError('CANCELLED', 'gone'))
    await expect(holding).rejects.toMatchObject({ reason: 'CANCELLED' })
  })

  /** An admission that asks for the claim and takes nothing. */
  function probe(): Parameters<Limits['admit']>[0] {
    const claim = claimOf({ ...plain, ...asked }, 'unary', consumer.id, service.id)
    return { id: newId(), costs: [], leaseMs: 1, ifAbandoned: usageEvent(), claim }
  }

  function aborted(signal: AbortSignal): Promise<{ attempts: Attempt[]; error: TollgateError }> {
    return new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve({ attempts: [attempt(1)], error: signal.reason }))
    })
  }
})

describe('the response cache', () => {
  const cached = { ...service, responseCache: { ttlMs: 60_000, sharing: 'organization' } } as const
  const anySignal = () => new AbortController().signal

  test('answers the same request again: a request that uses and costs nothing, with a record of its own', async () => {
    rules = [rule('consumer', consumer.id, 'cost_per_month', 1_500_000)]
    const changes = {
      snapshots: snapshotOf({ services: [cached] }),
      cache: createResponseCache(65_536, Date.now),
    }
    const first = await route(changes)
    // Another call at its price would not fit the budget.
    const spaced = Buffer.from(Buffer.from(chat('x')).toString().replaceAll(',', ' ,\n'))
    const second = await route(changes, anySignal(), { payload: spaced })
    expect(dispatched).toBe(1)
    expect(second.body).toEqual(new Uint8Array(first.body))
    expect(await recorded()).toMatchObject([
      { usageSource: 'provider', costNanos: 1_000_000 },
      { status: 'succeeded', usageSource: 'cache', tokens: noTokens, costNanos: 0, currency: 'USD', attempt: 0 },
    ])
    expect(await used('tokens_per_month')).toEqual([7])
    expect(await used('cost_per_month')).toEqual([1_000_000])
  })

  test('lets a hit that is abandoned cost nothing', async () => {
    const admitted: Admission[] = []
    const admit: Limits['admit'] = (admission) => {
      admitted.push(admission)
      return limits.admit(admission)
    }
    const changes = {
      snapshots: snapshotOf({ services: [cached] }),
      cache: createResponseCache(65_536, Date.now),
      limits: { ...through(limits), admit },
    }
    await route(changes)
    await route(changes)
    const nothing = { status: 'abandoned', usageSource: 'cache', tokens: noTokens, costNanos: 0, currency: 'USD' }
    expect(admitted.map(({ ifAbandoned }) => ifAbandoned)).toMatchObject([{ costNanos: 1_000_000 }, nothing])
  })

  test('counts a hit as a request of its consumer', async () => {
    rules = [rule('consumer', consumer.id, 'requests_per_minute', 2)]
    const changes = {
      snapshots: snapshotOf({ services: [cached] }),
      cache: createResponseCache(65_536, Date.now),
    }
    await route(changes)
    await route(changes)
    await expect(route(changes)).rejects.toMatchObject({ reason: 'RATE_LIMITED' })
  })

  test.for([
    ['No-Store', 0, 2],
    ['max-age=0, NO-CACHE', 1, 2],
    ['max-age=0', 1, 1],
  ] as const)('does what the caller says: cache-control %s', async ([control, answers, calls]) => {
    const cache = createResponseCache(65_536, Date.now)
    const changes = { snapshots: snapshotOf({ services: [cached] }), cache }
    for (let i = 0; i < 2; i++) await route(changes, anySignal(), {}, { 'cache-control': control })
    expect([cache.size().answers, dispatched]).toEqual([answers, calls])
  })

  test('keeps nothing of a failed call, nothing for others, and nothing unasked', async () => {
    const cache = createResponseCache(65_536, Date.now)
    const down = new TollgateError('BACKEND_FAILED', 'down')
    const failing = { dispatch: async () => ({ attempts: [attempt(1, down)], error: down }) }
    const changes = { snapshots: snapshotOf({ services: [cached] }), cache }
    await expect(route({ ...changes, dispatcher: failing })).rejects.toMatchObject({ reason: 'BACKEND_FAILED' })
    expect(cache.size().answers).toBe(0)
    await route({ cache })
    expect(cache.size().answers).toBe(0)
  })
})

describe('a fallback', () => {
  const dear = { kind: 'per_request', requestNanos: 3_000_000 } as const
  const backup = serviceRecord({
    id: newId(),
    name: 'backup',
    endpoints: [endpointRecord({ id: newId() })],
    prices: [{ version: 'b1', currency: 'USD', effectiveFromMs: 0, model: dear }],
  })
  const down = new TollgateError('BACKEND_FAILED', 'down')
  const filtered = new TollgateError('BACKEND_REJECTED', 'no', { metadata: { backendError: 'content_filter' } })

  /** Of the named service every call fails. */
  function failing(name: string, error: TollgateError): Dispatching {
    return {
      async dispatch(of, task, call) {
        return of.name === name ? { attempts: [attempt(1, error)], error } : dispatcher.dispatch(of, task, call)
      },
    }
  }

  function having(on: FallbackCondition[], consumers = [consumer]) {
    const primary = {
      ...service,
      fallbacks: [
        { serviceId: 'gone', on },
        { serviceId: backup.name, on },
      ],
    }
    return snapshotOf({ services: [primary, backup], consumers })
  }

  test('takes over a failed call at its own price, and both have their record', async () => {
    const changes = { dispatcher: failing(service.name, down), snapshots: having(['error']) }
    const { event } = await route(changes)
    expect(event).toMatchObject({ serviceId: backup.id, costNanos: 3_000_000, priceVersion: 'b1', status: 'succeeded' })
    expect(await recorded()).toMatchObject([
      {
        requestId: event.requestId,
        serviceId: service.id,
        status: 'failed',
        errorReason: 'BACKEND_FAILED',
        costNanos: 0,
      },
      event,
    ])
    // Of the service that failed nothing was used.
    expect(await used('tokens_per_month')).toEqual([0])
  })

  test.for([
    ['content_filter', filtered, true],
    ['error', filtered, false],
    ['content_filter', down, false],
    ['timeout', new TollgateError('BACKEND_TIMEOUT', 'slow'), true],
  ] as const)('on %s takes over nothing else', async ([condition, error, takesOver]) => {
    const call = route({ dispatcher: failing(service.name, error), snapshots: having([condition]) })
    if (takesOver) expect((await call).event.serviceId).toBe(backup.id)
    else await expect(call).rejects.toMatchObject({ reason: error.reason })
  })

  test('that refuses the call is passed over: the caller is told the failure, and why no fallback helped', async () => {
    const confined = { ...consumer, grantedServices: new Set([service.id]) }
    const call = route({ dispatcher: failing(service.name, down), snapshots: having(['error'], [confined]) })
    await expect(call).rejects.toMatchObject({
      reason: 'BACKEND_FAILED',
      metadata: { fallbacks: 'gone: SERVICE_NOT_FOUND, backup: POLICY_DENIED' },
    })
    expect(await recorded()).toMatchObject([{ serviceId: service.id, status: 'failed' }])
  })

  test.for([
    ['azure_openai', 'native', true],
    ['anthropic', 'native', false],
    ['anthropic', 'openai', true],
  ] as const)('of protocol %s, for a %s payload: %s', async ([protocol, dialect, takesOver]) => {
    const other = { ...backup, endpoints: [endpointRecord({ id: newId(), protocol })] }
    const primary = { ...service, fallbacks: [{ serviceId: backup.name, on: ['error'] as const }] }
    const asked: string[] = []
    const everywhere: Dispatching = {
      async dispatch({ name }) {
        asked.push(name)
        return { attempts: [attempt(1, down)], error: down }
      },
    }
    const changes = { dispatcher: everywhere, snapshots: snapshotOf({ services: [primary, other] }) }
    await expect(route(changes, new AbortController().signal, { dialect })).rejects.toMatchObject(down)
    expect(asked).toEqual(takesOver ? [service.name, backup.name] : [service.name])
  })

  test('does not begin for a caller that left, or whose own call was refused', async () => {
    const gone = new TollgateError('CANCELLED', 'gone')
    const left = route({ dispatcher: failing(service.name, gone), snapshots: having(['error']) })
    await expect(left).rejects.toMatchObject({ reason: 'CANCELLED' })
    const denied = { ...consumer, grantedServices: new Set([backup.id]) }
    await expect(route({ snapshots: having(['error'], [denied]) })).rejects.toMatchObject({ reason: 'POLICY_DENIED' })
    expect(dispatched).toBe(0)
  })

  test('is not asked for a call that went on without its caller', async () => {
    const caller = new AbortController()
    const slow = new TollgateError('BACKEND_TIMEOUT', 'slow')
    const drained: Dispatching = {
      async dispatch() {
        caller.abort(new TollgateError('CANCELLED', 'gone'))
        return { attempts: [attempt(1, slow)], error: slow }
      },
    }
    const left = route({ dispatcher: drained, snapshots: having(['timeout']) }, caller.signal)
    await expect(left).rejects.toMatchObject({ reason: 'BACKEND_TIMEOUT' })
    expect(await recorded()).toMatchObject([{ serviceId: service.id, status: 'failed' }])
  })

  test('answers all repetitions of an idempotency key', async () => {
    const changes = { dispatcher: failing(service.name, down), snapshots: having(['error']) }
    const asked = { idempotencyKey: 'once' }
    const calls = Array.from({ length: 10 }, () => route(changes, new AbortController().signal, asked))
    const answers = await Promise.all(calls)
    expect(new Set(answers.map(({ event }) => event.requestId)).size).toBe(1)
    expect(dispatched).toBe(1)
    expect((await recorded()).filter(({ status }) => status === 'succeeded')).toHaveLength(1)
  })
})
