import { rm } from 'node:fs/promises'
import { Code, ConnectError } from '@connectrpc/connect'
import OpenAI, { APIError } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ErrorInfoSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.ts'
import { ConsumptionService, UsageSource } from '../gen/marketplace/v1/consumption_pb.ts'
import { LimitName, LimitScope, LimitService } from '../gen/marketplace/v1/limits_pb.ts'
import { Endpoint_Protocol, Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { CallStatus, type UsageRecord, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { at, everywhere, parseJson } from './support/json.ts'
import { chat } from './support/payloads.ts'
import { refusal } from './support/refusal.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { demoFacts, scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'

/** A gate behind the gate, with a consumer for it. */
interface Inner {
  readonly gate: Tollgate
  readonly adminKey: string
  readonly tenant: Tenant
}

let backend: PracticeBackend
let inner: Inner
let doomed: Inner
let outer: Tollgate
/** Of a caller of the outer gate. */
let key: string
let doomedDir: string

async function startInner(dataDir?: string): Promise<Inner> {
  const gate = await startTollgate({ command: 'dev', ...(dataDir === undefined ? {} : { dataDir }) })
  const { adminKey = '' } = await demoFacts(gate)
  const tenant = await makeTenant(gate, adminKey, 'inner', `${backend.url}/v1/chat/completions`)
  return { gate, adminKey, tenant }
}

beforeAll(async () => {
  backend = await startPracticeBackend()
  doomedDir = await scratchDir()
  inner = await startInner()
  doomed = await startInner(doomedDir)
  const keys = { INNER_KEY: inner.tenant.key, DOOMED_KEY: doomed.tenant.key, WRONG_KEY: 'tg_live_wrong' }
  outer = await startTollgate({ command: 'dev', env: { ...keys, BREAKER_FAILURES: '100' } })
  const facts = await demoFacts(outer)
  key = facts.key ?? ''
  const registry = outer.client(Registry, facts.adminKey ?? '')
  const value = { inputNanosPerMillion: 5_000_000_000n, outputNanosPerMillion: 7_000_000_000n }
  const pricing = { currency: 'EUR', model: { case: 'perToken', value } } as const
  for (const [name, gate, credentialRef, model] of [
    ['up', inner.gate, 'env:INNER_KEY', inner.tenant.serviceId],
    ['doomed', doomed.gate, 'env:DOOMED_KEY', 'inner'],
    ['locked', inner.gate, 'env:WRONG_KEY', 'inner'],
    ['nowhere', inner.gate, 'env:INNER_KEY', 'no-such-service'],
  ] as const) {
    const endpoint = { url: gate.address, protocol: Endpoint_Protocol.GRPC, credentialRef, model }
    await registry.registerService({ service: { name, version: '1.0.0', endpoints: [endpoint], pricing } })
  }
}, 180_000)

afterAll(async () => {
  await Promise.all([outer, inner?.gate, doomed?.gate].map((gate) => gate?.stop()))
  await backend?.close()
  await rm(doomedDir, { recursive: true, force: true })
})

function route(serviceId: string, payload: Uint8Array, timeoutMs?: number) {
  const options = timeoutMs === undefined ? {} : { timeoutMs }
  return outer.client(ConsumptionService, key).routeRequest({ serviceId, payload }, options)
}

function openAi(): OpenAI {
  return new OpenAI({ baseURL: `${outer.address}/v1`, apiKey: key, maxRetries: 0 })
}

/** What a stream delivers, and how it ends. */
async function readStream(gate: Tollgate, credential: string, serviceId: string, payload: Uint8Array) {
  const events: string[] = []
  for await (const { part } of gate.client(ConsumptionService, credential).streamRequest({ serviceId, payload })) {
    if (part.case === 'eventData') events.push(Buffer.from(part.value).toString())
    if (part.case === 'end') return { events, end: part.value }
  }
  throw new Error('the stream ended without its end')
}

function textOf(events: readonly string[]): string {
  return events.flatMap((event) => everywhere(parseJson(event), 'content')).join('')
}

/** The newest record of a key's consumer that fulfils the condition. */
function recordWhere(
  gate: Tollgate,
  credential: string,
  holds: (record: UsageRecord) => boolean,
): Promise<UsageRecord> {
  return eventually(async () => {
    const { usageRecords } = await gate.client(UsageService, credential).listUsageRecords({})
    return usageRecords.find(holds)
  })
}

describe('a gate behind a gate', () => {
  test('answers whole what it answers itself, and both ledgers have the same usage', async () => {
    const payload = chat('Tell me of two gates.')
    const direct = await inner.gate
      .client(ConsumptionService, inner.tenant.key)
      .routeRequest({ serviceId: 'inner', payload })
    const { responseData, usage, servedBy, finishReason, requestId } = await route('up', payload)
    const [answer, expected] = [responseData, direct.responseData].map((data) =>
      parseJson(Buffer.from(data).toString()),
    )
    expect(at(answer ?? null, 'choices')).toEqual(at(expected ?? null, 'choices'))
    expect({ usage, model: servedBy?.model, finishReason }).toEqual({
      usage: direct.usage,
      model: direct.servedBy?.model,
      finishReason: direct.finishReason,
    })
    expect(finishReason).toMatch(/stop|length/)
    const own = await recordWhere(outer, key, (record) => record.requestId === requestId)
    const theirs = await recordWhere(inner.gate, inner.tenant.key, (record) => record.requestId !== direct.requestId)
    expect(own.usage).toEqual(theirs.usage)
    expect(own.cost?.amountNanos).toBe((usage?.inputTokens ?? 0n) * 5_000n + (usage?.outputTokens ?? 0n) * 7_000n)
    expect(theirs.cost?.currency).toBe('USD')
  })

  test('streams what it streams itself, over gRPC and by the OpenAI API', async () => {
    const payload = chat('Tell me of two gates.')
    const direct = await readStream(inner.gate, inner.tenant.key, 'inner', payload)
    const { events, end } = await readStream(outer, key, 'up', payload)
    expect(textOf(events)).toBe(textOf(direct.events))
    expect(textOf(events)).not.toBe('')
    expect({ usage: end.usage, finish: end.finishReason }).toEqual({
      usage: direct.end.usage,
      finish: direct.end.finishReason,
    })
    expect(end.usage?.source).toBe(UsageSource.PROVIDER)

    let text = ''
    let told: OpenAI.CompletionUsage | null | undefined
    const messages = [{ role: 'user' as const, content: 'Tell me of two gates.' }]
    const asked = { model: 'up', messages, max_tokens: 32, stream_options: { include_usage: true } }
    for await (const chunk of await openAi().chat.completions.create({ ...asked, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? ''
      told = chunk.usage ?? told
    }
    expect(text).not.toBe('')
    expect(told?.completion_tokens).toBe(Number(end.usage?.outputTokens))
  })

  test('is told when the caller leaves', async () => {
    const leaving = new AbortController()
    const payload = chat('x', 'practice:pace=30', 500)
    const client = outer.client(ConsumptionService, key)
    const read = async () => {
      let events = 0
      for await (const { part } of client.streamRequest({ serviceId: 'up', payload }, { signal: leaving.signal })) {
        if (part.case === 'eventData') events += 1
        if (events === 3) leaving.abort()
      }
    }
    await expect(read()).rejects.toMatchObject({ code: Code.Canceled })
    const cancelled = ({ status }: UsageRecord): boolean => status === CallStatus.CANCELLED
    const theirs = await recordWhere(inner.gate, inner.tenant.key, cancelled)
    const own = await recordWhere(outer, key, cancelled)
    for (const { usage } of [theirs, own]) {
      expect(usage?.source).toBe(UsageSource.PARTIAL)
      expect(usage?.outputTokens).toBeGreaterThan(0n)
    }
    await eventually(() => backend.stats().inFlight === 0)
  })

  test('has the caller’s deadline', async () => {
    const { code } = await refusal(route('up', chat('x', 'practice:silence'), 500))
    expect(code).toBe(Code.DeadlineExceeded)
    const late = ({ status }: UsageRecord): boolean => status === CallStatus.DEADLINE_EXCEEDED
    await recordWhere(inner.gate, inner.tenant.key, late)
  })

  test.each([
    ['refuses our key', 'locked', Code.Internal, 'BACKEND_CREDENTIAL_REFUSED', 'CREDENTIAL_INVALID'],
    ['has no such service', 'nowhere', Code.Unavailable, 'BACKEND_FAILED', 'SERVICE_NOT_FOUND'],
  ])('that %s fails us, not the caller', async (_, serviceId, code, reason, backendReason) => {
    expect(await refusal(route(serviceId, chat('x')))).toMatchObject({ code, reason, metadata: { backendReason } })
  })

  test('whose backend rejects the request says so to the caller', async () => {
    backend.failNext('status=400')
    const { completions } = openAi().chat
    const asked = completions.create({ model: 'up', messages: [{ role: 'user', content: 'x' }] })
    await expect(asked).rejects.toMatchObject({ status: 400, code: 'backend_rejected', type: 'invalid_request_error' })
  })

  test('whose limit refuses us is waited for, and where there is no time the caller is told when to come', async () => {
    const limits = doomed.gate.client(LimitService, doomed.adminKey)
    const limit = {
      scope: LimitScope.CONSUMER,
      subjectId: doomed.tenant.consumerId,
      name: LimitName.REQUESTS_PER_SECOND,
    }
    await limits.setLimit({ limit: { ...limit, amount: 1n, burst: 1n } })
    await route('doomed', chat('x'))
    const waited = await route('doomed', chat('x'))
    expect(waited.servedBy?.attempt).toBe(2)
    const error = ConnectError.from(await route('doomed', chat('x'), 400).catch((thrown: unknown) => thrown))
    expect(error.code).toBe(Code.Unavailable)
    expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({
      reason: 'BACKEND_FAILED',
      metadata: { backendReason: 'RATE_LIMITED', failure: 'busy' },
    })
    expect(error.findDetails(RetryInfoSchema)).toHaveLength(1)
    await limits.deleteLimit(limit)
  })

  test('that is killed in mid-stream leaves an honest error and a partial record', async () => {
    const payload = chat('x', 'practice:pace=30', 500)
    const messages = [{ role: 'user' as const, content: 'x' }]
    backend.failNext('pace=30')
    const other = await openAi().chat.completions.create({ model: 'doomed', messages, max_tokens: 500, stream: true })
    const events: string[] = []
    let requestId = ''
    const streamed = async () => {
      const client = outer.client(ConsumptionService, key)
      for await (const { part } of client.streamRequest({ serviceId: 'doomed', payload })) {
        if (part.case === 'eventData') events.push(Buffer.from(part.value).toString())
        if (part.case === 'start') requestId = part.value.requestId
        if (events.length === 5) await doomed.gate.kill9()
      }
    }
    const error = ConnectError.from(await streamed().catch((thrown: unknown) => thrown))
    expect(error.code).toBe(Code.Unavailable)
    expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({
      reason: 'BACKEND_FAILED',
      metadata: { failure: 'cut' },
    })
    const record = await recordWhere(outer, key, (candidate) => candidate.requestId === requestId)
    expect(record).toMatchObject({ status: CallStatus.FAILED, errorReason: 'BACKEND_FAILED' })
    expect(record.usage?.source).toBe(UsageSource.PARTIAL)
    expect(Number(record.usage?.outputTokens)).toBe(events.filter((event) => textOf([event]) !== '').length)
    expect(record.cost?.amountNanos).toBeGreaterThan(0n)
    expect(await refusal(route('doomed', chat('x')))).toMatchObject({ reason: 'BACKEND_UNREACHABLE' })
    const read = async () => {
      for await (const { choices } of other) expect(choices[0]?.finish_reason).toBeNull()
    }
    await expect(read()).rejects.toThrow(APIError)
  })

  test('that comes back is called again', async () => {
    const { port } = new URL(doomed.gate.address)
    const gate = await startTollgate({ command: 'dev', dataDir: doomedDir, env: { PORT: port } })
    doomed = { ...doomed, gate }
    expect(await route('doomed', chat('x'))).toMatchObject({ servedBy: { attempt: 1 } })
  })
})
