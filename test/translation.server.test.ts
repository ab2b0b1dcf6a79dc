import OpenAI, { APIError } from 'openai'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService, Tier } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService, type Usage, UsageSource } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { Endpoint_Protocol, Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { CallStatus, type UsageRecord, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { anthropicModel, startAnthropicServer } from './support/anthropic-server.ts'
import { eventually } from './support/eventually.ts'
import { geminiModel, startGeminiServer } from './support/gemini-server.ts'
import { type Json, parseJson } from './support/json.ts'
import type { ProviderServer } from './support/provider-server.ts'
import { demoFacts, startTollgate, type Tollgate } from './support/tollgate.ts'
import {
  anthropicChat,
  expectedSaid,
  geminiChat,
  joinChunks,
  type NativeChat,
  openAiHistory,
  openAiRequest,
  readOpenAi,
  type Said,
} from './support/weather-chat.ts'

const backendKey = 'key-of-the-gate-at-its-backends'
const apis = ['anthropic', 'gemini'] as const
type Api = (typeof apis)[number]
const natives: Readonly<Record<Api, NativeChat>> = { anthropic: anthropicChat, gemini: geminiChat }

let tollgate: Tollgate
let servers: Readonly<Record<Api, ProviderServer>>
let key: string

beforeAll(async () => {
  servers = { anthropic: await startAnthropicServer(backendKey), gemini: await startGeminiServer(backendKey) }
  const env = { BACKEND_KEY: backendKey, WRONG_BACKEND_KEY: 'rotated-away', DEFAULT_DEADLINE_MS: '20000' }
  tollgate = await startTollgate({ command: 'dev', env })
  const { adminKey = '' } = await demoFacts(tollgate)
  const registry = tollgate.client(Registry, adminKey)
  const value = {
    inputNanosPerMillion: 3_000_000_000n,
    cachedInputNanosPerMillion: 300_000_000n,
    cacheWriteInputNanosPerMillion: 3_750_000_000n,
    outputNanosPerMillion: 15_000_000_000n,
    reasoningOutputNanosPerMillion: 14_000_000_000n,
  }
  const pricing = { currency: 'USD', model: { case: 'perToken', value } } as const
  const endpoints = {
    anthropic: { protocol: Endpoint_Protocol.ANTHROPIC, model: anthropicModel, url: servers.anthropic.url },
    gemini: { protocol: Endpoint_Protocol.GEMINI, model: geminiModel, url: servers.gemini.url },
  }
  for (const api of apis) {
    for (const [name, credentialRef] of [
      [api, 'env:BACKEND_KEY'],
      [`${api}-locked`, 'env:WRONG_BACKEND_KEY'],
    ] as const) {
      const service = { name, version: '1.0.0', endpoints: [{ ...endpoints[api], credentialRef }], pricing }
      await registry.registerService({ service })
    }
  }
  const consumers = tollgate.client(ConsumerService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'translated' } })
  const consumer = { name: 'c', organizationId, tier: Tier.ENTERPRISE, grantedServices: ['*'] }
  const { id: consumerId } = await consumers.createConsumer({ consumer })
  key = (await tollgate.client(KeyService, adminKey).createKey({ consumerId })).key
})

afterAll(async () => {
  await tollgate?.stop()
  await Promise.all(Object.values(servers ?? {}).map((server) => server.close()))
})

afterEach(() => {
  for (const server of Object.values(servers)) server.fault = 'none'
})

/** One answer, as its caller sees it, and the id of its usage record. */
interface Told {
  readonly said: Said
  readonly usage: Readonly<Record<string, number>>
  readonly requestId: string
}

function sdk(): OpenAI {
  return new OpenAI({ baseURL: `${tollgate.address}/v1`, apiKey: key, maxRetries: 0 })
}

type Ask = (api: Api) => Promise<readonly [Told, Told]>

/** The conversation by OpenAI's own SDK. */
const translated: Readonly<Record<'whole' | 'streamed', Ask>> = {
  async whole(api) {
    const { completions } = sdk().chat
    const first = await completions.create(openAiRequest(api, [])).withResponse()
    const [choice] = first.data.choices
    if (choice === undefined) throw new Error('no choice')
    expect(choice.finish_reason).toBe('tool_calls')
    const second = await completions.create(openAiRequest(api, openAiHistory(choice.message))).withResponse()
    expect(second.data.choices[0]?.finish_reason).toBe('stop')
    const [told, toldNext] = [first, second].map(({ data, response }) => {
      const message = data.choices[0]?.message
      if (message === undefined) throw new Error('no message')
      return toldBy(readOpenAi(message), data.usage, response)
    })
    return pair(told, toldNext)
  },

  async streamed(api) {
    const options = { stream: true, stream_options: { include_usage: true } } as const
    const ask = async (history: OpenAI.ChatCompletionMessageParam[]) => {
      const { completions } = sdk().chat
      const { data, response } = await completions.create({ ...openAiRequest(api, history), ...options }).withResponse()
      const chunks: OpenAI.ChatCompletionChunk[] = []
      for await (const chunk of data) chunks.push(chunk)
      const joined = joinChunks(chunks)
      return { ...joined, told: toldBy(readOpenAi(joined.message), joined.usage, response) }
    }
    const first = await ask([])
    expect(first.finish).toBe('tool_calls')
    const second = await ask(openAiHistory(first.message))
    expect(second.finish).toBe('stop')
    return [first.told, second.told]
  },
}

/** The same in the backend's own API, over gRPC. */
const native: Readonly<Record<'whole' | 'streamed', Ask>> = {
  async whole(api) {
    const { requests, read } = natives[api]
    const client = tollgate.client(ConsumptionService, key)
    const told: Told[] = []
    for (const request of requests) {
      const { responseData, usage, requestId } = await client.routeRequest({ serviceId: api, payload: bytes(request) })
      told.push({ said: read([document(responseData)]), usage: usageOf(usage), requestId })
    }
    return pair(...told)
  },

  async streamed(api) {
    const { requests, read } = natives[api]
    const client = tollgate.client(ConsumptionService, key)
    const told: Told[] = []
    for (const request of requests) {
      const documents: Json[] = []
      for await (const { part } of client.streamRequest({ serviceId: api, payload: bytes(request) })) {
        if (part.case === 'eventData') documents.push(document(part.value))
        if (part.case === 'end') {
          told.push({ said: read(documents), usage: usageOf(part.value.usage), requestId: part.value.requestId })
        }
      }
    }
    return pair(...told)
  },
}

function toldBy(said: Said, usage: OpenAI.CompletionUsage | undefined, { headers }: Response): Told {
  if (usage === undefined) throw new Error('no usage')
  const { prompt_tokens_details: prompt, completion_tokens_details: completion } = usage
  const written: unknown = prompt === undefined ? 0 : Reflect.get(prompt, 'cache_write_tokens')
  return {
    said,
    usage: {
      input: usage.prompt_tokens,
      cached: prompt?.cached_tokens ?? 0,
      written: Number(written),
      output: usage.completion_tokens,
      reasoning: completion?.reasoning_tokens ?? 0,
      total: usage.total_tokens,
    },
    requestId: headers.get('x-request-id') ?? '',
  }
}

function usageOf(usage: Usage | undefined): Told['usage'] {
  if (usage === undefined) throw new Error('no usage')
  return {
    input: Number(usage.inputTokens),
    cached: Number(usage.cachedInputTokens),
    written: Number(usage.cacheWriteInputTokens),
    output: Number(usage.outputTokens),
    reasoning: Number(usage.reasoningOutputTokens),
    total: Number(usage.totalTokens),
  }
}

function pair(first?: Told, second?: Told): readonly [Told, Told] {
  if (first === undefined || second === undefined) throw new Error('an answer is missing')
  return [first, second]
}

function bytes(request: Json): Uint8Array {
  return Buffer.from(JSON.stringify(request))
}

function document(data: Uint8Array): Json {
  return parseJson(Buffer.from(data).toString())
}

/** The record of a call that counts. */
async function recordOf(requestId: string): Promise<UsageRecord> {
  const client = tollgate.client(UsageService, key)
  const counts = ({ requests }: UsageRecord): boolean => requests === 1
  return await eventually(async () => (await client.listUsageRecords({ requestId })).usageRecords.find(counts))
}

/** What of a record is the same for the same use. */
function figuresOf({ serviceId, endpointId, status, errorReason, usage, cost, model, attempt, requests }: UsageRecord) {
  return { serviceId, endpointId, status, errorReason, usage, cost, model, attempt, requests }
}

describe.each(apis)('a conversation with a service of %s', (api) => {
  test.each(['whole', 'streamed'] as const)('is %s the same by the OpenAI API as natively', async (mode) => {
    const { received } = servers[api]
    received.length = 0
    const own = await native[mode](api)
    const others = await translated[mode](api)

    // The backend is asked for the same.
    expect(received).toHaveLength(4)
    expect(received.slice(2).map(({ body }) => body)).toEqual(received.slice(0, 2).map(({ body }) => body))
    expect(received.slice(2).map(({ path }) => path)).toEqual(received.slice(0, 2).map(({ path }) => path))
    // Content and usage are the same.
    expect(own.map(({ said }) => said)).toEqual(expectedSaid)
    expect(others.map(({ said }) => said)).toEqual(expectedSaid)
    expect(others.map(({ usage }) => usage)).toEqual(own.map(({ usage }) => usage))
    expect(own[0].usage.cached).toBeGreaterThan(0)
    // And so is the ledger.
    for (const [index, { requestId, usage }] of own.entries()) {
      const record = await recordOf(requestId)
      const other = await recordOf(others[index]?.requestId ?? '')
      expect(usageOf(record.usage)).toEqual(usage)
      expect(record.cost?.amountNanos).toBeGreaterThan(0n)
      expect(figuresOf(other)).toEqual(figuresOf(record))
    }
  })

  async function failure(request: OpenAI.ChatCompletionCreateParams) {
    let chunks = 0
    let requestId: string | null = null
    try {
      const { data, response } = await sdk().chat.completions.create(request).withResponse()
      requestId = response.headers.get('x-request-id')
      if ('choices' in data) throw new Error('it was answered')
      for await (const _ of data) chunks += 1
    } catch (error) {
      if (error instanceof APIError) return { error, chunks, requestId: requestId ?? error.requestID ?? '' }
      throw error
    }
    throw new Error('it succeeded')
  }

  test.each([
    ['logit_bias', { logit_bias: { 50256: -100 } }, 'logit_bias'],
    ['logprobs', { logprobs: true }, 'logprobs'],
    [
      'a file',
      { messages: [{ role: 'user', content: [{ type: 'file', file: { file_id: 'f' } }] }] },
      'messages[0].content[0].file',
    ],
    ['a tool of OpenAI’s own', { tools: [{ type: 'custom', custom: { name: 'x' } }] }, 'tools[0].custom'],
  ] as const)('is refused for %s, which has no translation, before the backend is asked', async (_, more, param) => {
    servers[api].received.length = 0
    const messages = [{ role: 'user', content: 'Hello' }]
    const request = { model: api, messages, ...more }
    const response = await fetch(`${tollgate.address}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify(request),
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toEqual({
      error: { message: expect.stringContaining(param), type: 'invalid_request_error', param, code: 'invalid_value' },
    })
    expect(servers[api].received).toHaveLength(0)
  })

  test('is refused for embeddings', async () => {
    const asked = sdk().embeddings.create({ model: api, input: 'x' })
    await expect(asked).rejects.toMatchObject({ status: 400, code: 'invalid_value' })
  })

  test('that does not fit the model is the caller’s to mend', async () => {
    servers[api].fault = 'too_long'
    const { error } = await failure(openAiRequest(api, []))
    expect(error).toMatchObject({ status: 400, code: 'context_length_exceeded', type: 'invalid_request_error' })
  })

  test('with a backend that is overloaded is tried again, and then its failure is told', async () => {
    servers[api].fault = 'overloaded'
    const { error, requestId } = await failure(openAiRequest(api, []))
    expect(error).toMatchObject({ status: 502, code: 'backend_failed' })
    const record = await recordOf(requestId)
    expect(record).toMatchObject({ attempt: 3, errorReason: 'BACKEND_FAILED', cost: { amountNanos: 0n } })
  })

  test('with a backend that refuses the gate’s credential is not the caller’s 401', async () => {
    const { error } = await failure(openAiRequest(`${api}-locked`, []))
    expect(error).toMatchObject({ status: 502, code: 'backend_credential_refused' })
    expect(error.message).not.toContain('rotated-away')
  })

  test.each(['cut', 'error_in_stream'] as const)(
    'whose stream breaks off (%s) raises, and what came is billed',
    async (fault) => {
      servers[api].fault = fault
      const { error, chunks, requestId } = await failure({ ...openAiRequest(api, []), stream: true })
      expect(error.code).toBe('backend_failed')
      expect(chunks).toBeGreaterThan(0)
      const record = await recordOf(requestId)
      expect(record).toMatchObject({ attempt: 1, status: CallStatus.FAILED, errorReason: 'BACKEND_FAILED' })
      expect(record.usage?.source).toBe(UsageSource.PARTIAL)
      expect(record.usage?.outputTokens).toBeGreaterThan(0n)
      expect(record.cost?.amountNanos).toBeGreaterThan(0n)
    },
  )
})
