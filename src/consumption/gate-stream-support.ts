import { rm } from 'node:fs/promises'
import pino from 'pino'
import { expect } from 'vitest'
import { keyOf, testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { type PracticeDispatch, startPracticeDispatch } from '../../test/support/practice-dispatch.ts'
import { consumerRecord } from '../../test/support/registry-records.ts'
import { newId } from '../ids.ts'
import { limitsOfCall } from '../limits/call-limits.ts'
import type { LimitRule } from '../limits/limit-rule.ts'
import type { Limits } from '../limits/limits.ts'
import { totalTokens, type UsageEvent } from '../metering/usage-event.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { createGate, type GateStreamEnd, type GateStreamItem } from './gate.ts'
import { openTestLimits, silent } from './gate-support.ts'
import type { OpenCalls } from './open-calls.ts'
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
export const prices = [{ version: 'v1', currency: 'USD', effectiveFromMs: 0, model }]
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

export const serviceId = newId()

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

/** A gate before practice backends, whose streams are asked for and followed to their records: for the tests of a file. */
export async function startGateStreams(): Promise<GateStreams> {
  return new GateStreams(await startPracticeDispatch(2))
}

export class GateStreams {
  readonly practice: PracticeDispatch
  #test: TestState | undefined

  constructor(practice: PracticeDispatch) {
    this.practice = practice
  }

  /** To be called before each test: limits of its own, and backends that know nothing of what went before. */
  async begin(): Promise<void> {
    await this.practice.renew()
    this.#test = { ...(await openTestLimits()), events: [] }
  }

  /** To be called after each test. */
  async end(): Promise<void> {
    const { folder, limits } = this.#now
    await limits.close()
    await rm(folder, { recursive: true, force: true })
  }

  async stop(): Promise<void> {
    await this.practice.stop()
  }

  get limits(): Limits {
    return this.#now.limits
  }

  /** Asks for a stream of the practice backend with this fault. */
  ask(fault: string, setting: Setting = {}): AsyncGenerator<GateStreamItem, void> {
    const endpoint = { idleTimeoutMs: 1_000 }
    const service = { ...this.practice.service(endpoint), id: serviceId, prices, ...setting.service }
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
      limits: setting.limits ?? this.limits,
      dispatcher: this.practice.dispatcher,
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

  /** Everything that this test's calls left in the usage log. */
  async recorded(): Promise<readonly UsageEvent[]> {
    const { events } = this.#now
    const batch = await this.limits.usageLog.read(100, 1, new AbortController().signal)
    events.push(...batch.events())
    await batch.acknowledge()
    return events
  }

  /** What is used and held of the consumer's tokens, money and calls at once. */
  async used(): Promise<{ tokens: number; nanos: number; calls: number }> {
    const byConsumer = new Map([[`consumer:${consumer.id}`, rules]])
    const asked = limitsOfCall(byConsumer, { consumer, serviceId, keyId: 'testkey', atMs: Date.now() })
    const states = await this.limits.read(asked)
    const of = (name: string): number => {
      const index = asked.findIndex((limit) => limit.name === name)
      return (asked[index]?.capacity ?? Number.NaN) - (states[index]?.remaining ?? Number.NaN)
    }
    return { tokens: of('tokens_per_month'), nanos: of('cost_per_month'), calls: of('concurrent_requests') }
  }

  /** There is one record that counts; the limits hold what it says, and nothing else. */
  async settledAs(expected: Partial<UsageEvent>): Promise<UsageEvent> {
    const [event, ...more] = (await this.recorded()).filter(({ requests }) => requests === 1)
    if (event === undefined) throw new Error('nothing was recorded')
    expect(more).toEqual([])
    expect(event).toMatchObject(expected)
    const { input, output } = event.tokens
    expect(event.costNanos).toBe(input * nanos.input + output * nanos.output)
    expect(await this.used()).toEqual({ tokens: totalTokens(event.tokens), nanos: event.costNanos, calls: 0 })
    return event
  }

  get #now(): TestState {
    if (this.#test === undefined) throw new Error('no test is running')
    return this.#test
  }
}

interface TestState {
  readonly folder: string
  readonly limits: Limits
  /** Read from the usage log so far. */
  readonly events: UsageEvent[]
}

/** What a caller got of a stream. */
export interface Heard {
  readonly requestId: string
  readonly text: string
  readonly end: GateStreamEnd | undefined
  readonly error: unknown
}

/** Reads a stream to its end; `onOutput` is told after each item how many tokens came so far. */
export async function hear(
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

/** Pieces of output in a text. */
export function tokensIn(text: string): number {
  return text.split('"delta":{"content":').length - 1
}
