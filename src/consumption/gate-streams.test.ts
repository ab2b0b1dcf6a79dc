import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { keyOf, testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { type PracticeDispatch, startPracticeDispatch } from '../../test/support/practice-dispatch.ts'
import { consumerRecord, endpointRecord } from '../../test/support/registry-records.ts'
import { through } from '../../test/support/through-limits.ts'
import { type Reason, TollgateError } from '../errors.ts'
import type { KeyStanding } from '../identity/key-verifier.ts'
import { newId } from '../ids.ts'
import { limitsOfCall } from '../limits/call-limits.ts'
import { unitsOf } from '../limits/limit-keys.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import type { Limits, PeriodSeed } from '../limits/limits.ts'
import { createLocalLimits } from '../limits/local-limits.ts'
import { totalTokens, type UsageEvent } from '../metering/usage-event.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { createGate, type GateObserver, type GateStreamEnd, type GateStreamItem } from './gate.ts'
import { createOpenCalls, type OpenCalls } from './open-calls.ts'
import { createResponseCache, type ResponseCache } from './response-cache.ts'

const log = pino({ level: 'silent' })
const consumer = consumerRecord({ id: newId(), organizationId: newId(), tier: 'premium' })
const rates = { inputNanosPerMillion: 1e9, outputNanosPerMillion: 2e9, cachedInputNanosPerMillion: 1e8 }
const model = {
  kind: 'per_token',
  ...rates,
  cacheWriteInputNanosPerMillion: 5e9,
  reasoningOutputNanosPerMillion: 9e9,
  tiers: [],
} as const
const silent: GateObserver = {
  refused: () => {},
  recorded: () => {},
  thresholdPassed: () => {},
  policyDecided: () => {},
  cacheAsked: () => {},
}
const prices = [{ version: 'v1', currency: 'USD', effectiveFromMs: 0, model }]
/** What a token costs. */
const nanos = { input: 1_000, output: 2_000 }
const rules: readonly LimitRule[] = (['concurrent_requests', 'cost_per_month'] as const).map((name) => ({
  scope: 'consumer',
  subjectId: consumer.id,
  serviceId: undefined,
  name,
  amount: 1e12,
  burst: undefined,
  currency: name === 'cost_per_month' ? 'USD' : undefined,
}))

let practice: PracticeDispatch
let folder: string
let limits: Limits
let events: UsageEvent[]

beforeAll(async () => {
  practice = await startPracticeDispatch(2)
})
beforeEach(async () => {
  await practice.renew()
  folder = await mkdtemp(join(tmpdir(), 'tollgate-streams-'))
  // A ledger that has nothing yet: all that counts is on its way.
  const seed: PeriodSeed = async (limit, waiting) =>
    waiting.reduce((sum, event) => sum + (unitsOf(limit, event) ?? 0), 0)
  limits = await createLocalLimits({ folder, seed, log })
  events = []
})
afterEach(async () => {
  await limits.close()
  await rm(folder, { recursive: true, force: true })
})
afterAll(() => practice?.stop())

interface Setting {
  readonly service?: Partial<ServiceRecord>
  /** Beside the one that is called. */
  readonly others?: readonly ServiceRecord[]
  readonly limits?: Limits
  readonly cache?: ResponseCache
  readonly idempotencyKey?: string
  readonly signal?: AbortSignal
  readonly openCalls?: Pick<OpenCalls, 'follow'>
}

const serviceId = newId()

/** Asks for a stream of the practice backend with this fault. */
function ask(fault: string, setting: Setting = {}): AsyncGenerator<GateStreamItem, void> {
  const endpoint = { idleTimeoutMs: 1_000 }
  const service = { ...practice.service(endpoint), id: serviceId, prices, ...setting.service }
  const snapshot = buildSnapshot({
    version: 1,
    nowMs: 0,
    services: [service, ...(setting.others ?? [])],
    consumers: [consumer],
    limitRules: [...rules],
  })
  const gate = createGate({
    snapshots: { current: () => snapshot },
    policy: undefined,
    limits: setting.limits ?? limits,
    dispatcher: practice.dispatcher,
    cache: setting.cache ?? createResponseCache(0, Date.now),
    openCalls: setting.openCalls ?? { follow: () => () => {} },
    rateLimiting: true,
    observer: silent,
    log,
    now: Date.now,
    newId,
  })
  const request = {
    consumerId: consumer.id,
    serviceId: service.id,
    payload: chat('x', fault === '' ? 'practice' : `practice:${fault}`, 256),
    metadata: {},
    idempotencyKey: setting.idempotencyKey ?? '',
    dialect: 'native',
  } as const
  const { signal } = setting
  return gate.stream(request, testCall(keyOf(consumer), { id: newId(), ...(signal !== undefined && { signal }) }))
}

/** What a caller got of a stream. */
interface Heard {
  readonly requestId: string
  readonly text: string
  readonly end: GateStreamEnd | undefined
  readonly error: unknown
}

/** Reads a stream to its end; `onOutput` is told after each item how many tokens came so far. */
async function hear(
  stream: AsyncIterable<GateStreamItem>,
  onOutput: (tokens: number) => void = () => {},
): Promise<Heard> {
  let requestId = ''
  let text = ''
  let end: GateStreamEnd | undefined
  try {
    for await (const item of stream) {
      if (item.kind === 'start') requestId = item.requestId
      if (item.kind === 'end') end = item
      if (item.kind !== 'pieces') continue
      text += Buffer.concat(item.pieces).toString()
      onOutput(tokensIn(text))
    }
  } catch (error) {
    return { requestId, text, end, error }
  }
  return { requestId, text, end, error: undefined }
}

function tokensIn(text: string): number {
  return text.split('"delta":{"content":').length - 1
}

/** Everything that this test's calls left in the usage log. */
async function recorded(): Promise<readonly UsageEvent[]> {
  const batch = await limits.usageLog.read(100, 1, new AbortController().signal)
  events.push(...batch.events())
  await batch.acknowledge()
  return events
}

/** What is used and held of the consumer's tokens, money and calls at once. */
async function used(): Promise<{ tokens: number; nanos: number; calls: number }> {
  const byConsumer = new Map([[`consumer:${consumer.id}`, rules]])
  const asked = limitsOfCall(byConsumer, { consumer, serviceId, keyId: 'testkey', atMs: Date.now() })
  const states = await limits.read(asked)
  const of = (name: string): number => {
    const index = asked.findIndex((limit) => limit.name === name)
    return (asked[index]?.capacity ?? Number.NaN) - (states[index]?.remaining ?? Number.NaN)
  }
  return { tokens: of('tokens_per_month'), nanos: of('cost_per_month'), calls: of('concurrent_requests') }
}

/** There is one record that counts; the limits hold what it says, and nothing else. */
async function settledAs(expected: Partial<UsageEvent>): Promise<UsageEvent> {
  const [event, ...more] = (await recorded()).filter(({ requests }) => requests === 1)
  if (event === undefined) throw new Error('nothing was recorded')
  expect(more).toEqual([])
  expect(event).toMatchObject(expected)
  const { input, output } = event.tokens
  expect(event.costNanos).toBe(input * nanos.input + output * nanos.output)
  expect(await used()).toEqual({ tokens: totalTokens(event.tokens), nanos: event.costNanos, calls: 0 })
  return event
}

const gone = new TollgateError('CANCELLED', 'gone')

describe('a whole stream', () => {
  test('has its usage and its charge at its end, and they are what the record says', async () => {
    const { requestId, text, end, error } = await hear(ask('out=20,in=7'))
    expect(error).toBeUndefined()
    expect(tokensIn(text)).toBe(20)
    expect(text).not.toContain('[DONE]')
    expect(Buffer.concat(end?.tail ?? []).toString()).toBe('data: [DONE]\n\n')
    const event = await settledAs({ status: 'succeeded', usageSource: 'provider', attempt: 1, endpointId: '0' })
    expect(event.tokens).toMatchObject({ input: 7, output: 20 })
    expect(end).toMatchObject({ event, isReplayed: false, finishReason: 'stop', charge: { nanos: event.costNanos } })
    expect(requestId).toBe(event.requestId)
    expect(event.firstTokenMs).toBeGreaterThan(0)
    expect(event.firstTokenMs).toBeLessThanOrEqual(event.durationMs)
  })

  test('is recorded before its tail leaves', async () => {
    const order: string[] = []
    const settle: Limits['settle'] = async (settlement) => {
      const settled = await limits.settle(settlement)
      order.push('recorded')
      return settled
    }
    for await (const { kind } of ask('out=20', { limits: { ...through(limits), settle } })) order.push(kind)
    expect(order.slice(-2)).toEqual(['recorded', 'end'])
    expect(order.filter((step) => step === 'recorded')).toHaveLength(1)
  })

  test('that reports no usage is charged by an estimate', async () => {
    const { end } = await hear(ask('missing-usage,out=20'))
    expect(end?.event).toMatchObject({ usageSource: 'estimated', tokens: { output: 20 } })
    await settledAs({ status: 'succeeded', usageSource: 'estimated' })
  })
})

describe('a stream that breaks off throws after its pieces, and is charged what was delivered', () => {
  test.each<[string, Reason]>([
    ['cut=5', 'BACKEND_FAILED'],
    ['end=5', 'BACKEND_FAILED'],
    ['malformed=5', 'BACKEND_ANSWER_INVALID'],
    ['stall=5', 'BACKEND_TIMEOUT'],
  ])('%s', async (fault, reason) => {
    const { text, end, error } = await hear(ask(`${fault},out=20`))
    expect(end).toBeUndefined()
    expect(error).toMatchObject({ reason })
    expect(tokensIn(text)).toBe(5)
    const event = await settledAs({ status: 'failed', errorReason: reason, usageSource: 'partial', attempt: 1 })
    expect(event.tokens.output).toBe(5)
    expect(event.tokens.input).toBeGreaterThan(0)
  })
})

describe('a failure before the first output', () => {
  test.each<[string, Reason]>([
    ['status=500', 'BACKEND_FAILED'],
    ['reset', 'BACKEND_FAILED'],
    ['cut=0', 'BACKEND_FAILED'],
    ['end=0', 'BACKEND_FAILED'],
    ['empty', 'BACKEND_ANSWER_INVALID'],
    ['html', 'BACKEND_ANSWER_INVALID'],
  ])('%s goes unnoticed, and leaves a record that counts nothing', async (fault, reason) => {
    practice.backends[0]?.failNext(fault)
    const { requestId, end, error } = await hear(ask(''))
    expect(error).toBeUndefined()
    const event = await settledAs({ status: 'succeeded', attempt: 2, endpointId: '1', usageSource: 'provider' })
    expect(end?.event).toEqual(event)
    const inVain = { attempt: 1, endpointId: '0', status: 'failed', errorReason: reason, costNanos: 0 }
    expect((await recorded()).filter(({ requests }) => requests === 0)).toMatchObject([{ requestId, ...inVain }])
  })

  test('at every attempt is thrown before anything, and charged nothing', async () => {
    const { requestId, text, error } = await hear(ask('status=500'))
    expect([requestId, text]).toEqual(['', ''])
    expect(error).toMatchObject({ reason: 'BACKEND_FAILED', metadata: { attempts: '3' } })
    await settledAs({ status: 'failed', usageSource: 'none', attempt: 3, costNanos: 0 })
  })
})

describe('a key that ends after the third token', () => {
  const revoked = new TollgateError('CREDENTIAL_REVOKED', 'revoked')

  /** Streams a call, and lets its key end when three tokens came. */
  async function hearUntilRevoked(service: Partial<ServiceRecord>, fault: string): Promise<Heard> {
    let standing: KeyStanding = { refusal: undefined, expiresAtMs: undefined }
    const openCalls = createOpenCalls({ standingOf: async () => standing, now: Date.now })
    const heard = await hear(ask(fault, { service, openCalls }), (tokens) => {
      if (tokens < 3) return
      standing = { refusal: revoked, expiresAtMs: undefined }
      openCalls.recheck()
    })
    expect(openCalls.size()).toBe(0)
    return heard
  }

  test('with "cancel" ends the call with its reason, and what was delivered is paid', async () => {
    const { text, end, error } = await hearUntilRevoked({ onRevoke: 'cancel' }, 'out=256,pace=100')
    expect([end, error]).toEqual([undefined, revoked])
    const event = await settledAs({ status: 'cancelled', errorReason: 'CREDENTIAL_REVOKED', usageSource: 'partial' })
    expect(event.tokens.output).toBe(tokensIn(text))
    expect(event.costNanos).toBeGreaterThan(0)
    await eventually(() => practice.backends[0]?.stats().inFlight === 0)
  })

  test('with "finish" changes nothing', async () => {
    const { end, error } = await hearUntilRevoked({ onRevoke: 'finish' }, 'out=20,in=7,pace=20')
    expect([end?.kind, error]).toEqual(['end', undefined])
    await settledAs({ status: 'succeeded', usageSource: 'provider' })
  })
})

describe('a caller that leaves after the third token', () => {
  /** More than there is time for. */
  const endless = 'out=256,pace=100'

  /** Leaves as the server does it: the signal first, then the iterator is given up. */
  async function leaveAfterThree(fault: string, service: Partial<ServiceRecord>): Promise<unknown> {
    const caller = new AbortController()
    const stream = ask(fault, { service, signal: caller.signal })
    let text = ''
    for (let tokens = 0; tokens < 3; tokens = tokensIn(text)) {
      const { value } = await stream.next()
      if (value?.kind === 'pieces') text += Buffer.concat(value.pieces).toString()
    }
    caller.abort(gone)
    return stream.return().catch((error: unknown) => error)
  }

  function aborted() {
    return practice.log().filter(({ outcome }) => outcome === 'aborted')
  }

  test('with "cancel" ends the backend’s call, and pays what was delivered', async () => {
    const before = aborted().length
    expect(await leaveAfterThree(endless, { onDisconnect: 'cancel' })).toBe(gone)
    const [call] = await eventually(() => aborted().length > before && aborted().slice(before))
    const event = await settledAs({ status: 'cancelled', errorReason: 'CANCELLED', usageSource: 'partial' })
    expect(event.tokens.output).toBeGreaterThanOrEqual(3)
    expect(event.tokens.output).toBeLessThanOrEqual(call?.deliveredTokens ?? 0)
    expect(practice.backends[0]?.stats().inFlight).toBe(0)
  })

  test('with "drain" lets the backend end, and pays for all of it', async () => {
    const before = aborted().length
    await leaveAfterThree('out=20,in=7,pace=20', { onDisconnect: 'drain', drainLimitMs: undefined })
    const event = await settledAs({ status: 'succeeded', usageSource: 'provider' })
    expect(event.tokens).toMatchObject({ input: 7, output: 20 })
    expect(aborted()).toHaveLength(before)
  })

  test('with "drain" for a while lets the backend go on so long, and pays what came until then', async () => {
    const before = aborted().length
    expect(await leaveAfterThree(endless, { onDisconnect: 'drain', drainLimitMs: 500 })).toBe(gone)
    const [call] = await eventually(() => aborted().length > before && aborted().slice(before))
    const event = await settledAs({ status: 'cancelled', usageSource: 'partial' })
    // At a tenth of a second each, some came after the caller had left.
    expect(event.tokens.output).toBeGreaterThan(3)
    expect(event.tokens.output).toBeLessThanOrEqual(call?.deliveredTokens ?? 0)
    expect(call?.deliveredTokens).toBeLessThan(256)
  })

  test.each(['cancel', 'drain'] as const)('with "%s", but by its deadline, ends it at once', async (onDisconnect) => {
    const caller = new AbortController()
    const late = new TollgateError('DEADLINE_EXCEEDED', 'late')
    const stream = ask(endless, { service: { onDisconnect }, signal: caller.signal })
    const { text, end, error } = await hear(stream, (tokens) => tokens >= 3 && caller.abort(late))
    expect(end).toBeUndefined()
    expect(error).toBe(late)
    const event = await settledAs({ status: 'deadline_exceeded', usageSource: 'partial' })
    expect(event.tokens.output).toBe(tokensIn(text))
    await eventually(() => practice.backends[0]?.stats().inFlight === 0)
  })
})

test('a reader that never reads on holds its backend back, and is recorded when it is given up', async () => {
  const event = `data: {"choices":[{"index":0,"delta":{"content":"${'x'.repeat(100_000)}"}}]}\n\n`
  const most = 600
  let written = 0
  const left = new AbortController()
  const backend = createServer(async (request, response) => {
    request.resume()
    response.on('close', () => left.abort())
    for (; written < most && !left.signal.aborted; written += 1) {
      if (!response.write(event)) await once(response, 'drain', left).catch(() => {})
    }
    response.end()
  })
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  try {
    const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1/chat/completions`
    const caller = new AbortController()
    const endpoints = [endpointRecord({ url, idleTimeoutMs: 1_000 })]
    const stream = ask('', { service: { endpoints }, signal: caller.signal })
    await stream.next()
    await stable(() => written)
    // What fits into the sockets, and little more, of 60 MB.
    expect(written).toBeLessThan(most / 2)
    caller.abort(new TollgateError('DEADLINE_EXCEEDED', 'late'))
    await eventually(() => left.signal.aborted)
    await expect(stream.return()).rejects.toMatchObject({ reason: 'DEADLINE_EXCEEDED' })
    await settledAs({ status: 'deadline_exceeded', usageSource: 'partial' })
  } finally {
    backend.closeAllConnections()
    backend.close()
  }
})

describe('a caller that leaves before the first output', () => {
  async function leave(onDisconnect: 'cancel' | 'drain'): Promise<void> {
    const caller = new AbortController()
    const stream = ask('slow-first-token=500,missing-usage,out=20', {
      service: { onDisconnect },
      signal: caller.signal,
    })
    const first = stream.next()
    await eventually(() => practice.backends[0]?.stats().inFlight === 1)
    caller.abort(gone)
    await Promise.allSettled([first, stream.return()])
    await eventually(() => practice.backends[0]?.stats().inFlight === 0)
  }

  test('pays nothing with "cancel"', async () => {
    await leave('cancel')
    await settledAs({ status: 'cancelled', usageSource: 'none', attempt: 1, costNanos: 0 })
  })

  test('pays all of it with "drain"', async () => {
    await leave('drain')
    expect((await settledAs({ status: 'succeeded', usageSource: 'estimated' })).tokens.output).toBe(20)
  })
})

describe('a fallback', () => {
  const backupId = newId()

  /** A stream of a service whose only endpoint has the fault, with another service to take over. */
  function askWithBackup(fault: string): AsyncGenerator<GateStreamItem, void> {
    const [failing, sound] = practice.service().endpoints
    if (failing === undefined || sound === undefined) throw new Error('there are two backends')
    const endpoints = [{ ...failing, url: `${failing.url}?fault=${encodeURIComponent(fault)}` }]
    const backup = { ...practice.service(), id: backupId, name: 'backup', endpoints: [sound], prices }
    const fallbacks = [{ serviceId: backup.name, on: ['error' as const] }]
    return ask('', { service: { endpoints, fallbacks }, others: [backup] })
  }

  test('takes over a stream that has no output yet, and both services have their record', async () => {
    const taken = await hear(askWithBackup('status=500'))
    expect(taken.end?.event).toMatchObject({ serviceId: backupId, status: 'succeeded', endpointId: '1' })
    const counting = (await recorded()).filter(({ requests }) => requests === 1)
    expect(counting).toMatchObject([
      { serviceId, status: 'failed', errorReason: 'BACKEND_FAILED', costNanos: 0 },
      { serviceId: backupId, status: 'succeeded', requestId: taken.requestId },
    ])
  })

  test('never takes over a stream that has begun', async () => {
    const { text, error } = await hear(askWithBackup('cut=3'))
    expect(error).toMatchObject({ reason: 'BACKEND_FAILED' })
    expect(tokensIn(text)).toBe(3)
    await settledAs({ serviceId, status: 'failed', usageSource: 'partial' })
    expect(practice.attempted).toEqual(['0 cut'])
  })
})

describe('an idempotency key', () => {
  const asked = { idempotencyKey: 'order-1' }
  const received = () => practice.backends.reduce((sum, backend) => sum + backend.stats().received, 0)

  test('gives a repetition the same events, end and record, without another call', async () => {
    const first = await hear(ask('out=20', asked))
    const before = received()
    const second = await hear(ask('out=20', asked))
    expect(received()).toBe(before)
    const tail = (heard: Heard) => Buffer.concat(heard.end?.tail ?? []).toString()
    expect(second.text + tail(second)).toBe(first.text + tail(first))
    expect(second.requestId).toBe(first.requestId)
    const { event, charge, finishReason } = first.end ?? {}
    expect(second.end).toMatchObject({ event, charge, finishReason, isReplayed: true })
    await settledAs({ status: 'succeeded' })
  })

  test('lets a repetition wait for the stream that runs', async () => {
    let second: Promise<Heard> | undefined
    const before = received()
    const first = await hear(ask('out=20,pace=10', asked), () => {
      second ??= hear(ask('out=20,pace=10', asked))
    })
    expect((await second)?.end).toMatchObject({ isReplayed: true, event: first.end?.event })
    expect(received()).toBe(before + 1)
  })

  test('is free again when the stream broke off', async () => {
    practice.backends[0]?.failNext('cut=3')
    expect((await hear(ask('', asked))).error).toMatchObject({ reason: 'BACKEND_FAILED' })
    expect((await hear(ask('', asked))).end).toMatchObject({ isReplayed: false })
    expect(await recorded()).toMatchObject([{ status: 'failed' }, { status: 'succeeded' }])
  })

  test('of a stream too large to keep makes no second call either', async () => {
    // The backend repeats the model's name in each event.
    const fault = `out=256,id=${'x'.repeat(5_000)}`
    const { text, end } = await hear(ask(fault, asked))
    expect(end?.event.status).toBe('succeeded')
    expect(text.length).toBeGreaterThan(1_048_576)
    const before = received()
    const { error } = await hear(ask(fault, asked))
    expect(error).toMatchObject({
      reason: 'IDEMPOTENT_ANSWER_NOT_KEPT',
      metadata: { requestId: end?.event.requestId },
    })
    expect(received()).toBe(before)
  })
})

describe('the response cache', () => {
  const service = { responseCache: { ttlMs: 60_000, sharing: 'organization' } } as const

  test('replays a whole stream to its end, as a request that uses nothing', async () => {
    const setting = { service, cache: createResponseCache(1_048_576, Date.now) }
    const first = await hear(ask('out=20', setting))
    const second = await hear(ask('out=20', setting))
    const all = ({ text, end }: Heard) => text + Buffer.concat(end?.tail ?? []).toString()
    expect(all(second)).toBe(all(first))
    expect(await recorded()).toMatchObject([{ usageSource: 'provider' }, { usageSource: 'cache', costNanos: 0 }])
  })

  test.each(['cut=5', 'end=5', 'malformed=5'])('keeps nothing of a stream that broke off (%s)', async (fault) => {
    const cache = createResponseCache(1_048_576, Date.now)
    await hear(ask(fault, { service, cache }))
    expect(cache.size().answers).toBe(0)
  })
})

describe('a record that cannot be made', () => {
  /** Limits that are away for the first settlements: longer than callers wait, and some more. */
  function away(failures: number): Limits {
    let left = failures
    const settle: Limits['settle'] = async (settlement) => {
      left -= 1
      if (left >= 0) throw new TollgateError('LIMITS_UNAVAILABLE', 'away')
      return limits.settle(settlement)
    }
    return { ...through(limits), settle }
  }

  test('keeps the tail from the caller, who gets an error, and is made later', async () => {
    const { text, end, error } = await hear(ask('out=20,in=7', { limits: away(6) }))
    expect(tokensIn(text)).toBe(20)
    expect(end).toBeUndefined()
    expect(error).toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    expect(await recorded()).toEqual([])
    await eventually(async () => (await used()).calls === 0)
    const event = await settledAs({ status: 'succeeded', usageSource: 'provider' })
    expect(event.tokens).toMatchObject({ input: 7, output: 20 })
  })

  test('of a stream that broke off hides nothing of what broke it', async () => {
    const { error } = await hear(ask('cut=5,out=20', { limits: away(6) }))
    expect(error).toMatchObject({ reason: 'BACKEND_FAILED' })
    await eventually(async () => (await used()).calls === 0)
    await settledAs({ status: 'failed', usageSource: 'partial' })
  })
})

/** Waits until a figure has not changed for a while. */
async function stable(figure: () => number): Promise<void> {
  let last = Number.NaN
  let unchanged = 0
  await eventually(() => {
    unchanged = figure() === last ? unchanged + 1 : 0
    last = figure()
    return unchanged > 20
  })
}
