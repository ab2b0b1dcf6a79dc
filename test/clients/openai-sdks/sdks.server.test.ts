import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { UsageService } from '../../../gen/marketplace/v1/usage_pb.ts'
import { eventually } from '../../support/eventually.ts'
import { at, everywhere, has, type Json, list, member, parseJson, string } from '../../support/json.ts'
import { toolTimeoutMs } from '../../support/tools.ts'
import { openAiHistory, openAiRequest } from '../../support/weather-chat.ts'
import { type Step, sdks } from './steps.ts'
import { services, startWorld, type World } from './world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
}, toolTimeoutMs)
afterAll(async () => {
  await world?.close()
})

const messages = [{ role: 'user' as const, content: 'Tell me of ledgers.' }]
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const chatPath = '/v1/chat/completions'

describe.each(['Python', 'Node'] as const)('the SDK for %s', (sdk) => {
  async function take(...steps: Step[]): Promise<readonly Json[]> {
    return await sdks[sdk](world.tollgate.address, steps)
  }

  async function takeOne(step: Step): Promise<Json> {
    const [told = null] = await take(step)
    return told
  }

  function chat(key: string, changes: Partial<Extract<Step, { do: 'chat' }>['body']> = {}): Step {
    return { do: 'chat', key, body: { model: services.chat, messages, max_tokens: 8, ...changes } }
  }

  /** How often the gate answered while something was done, by path and status. */
  async function answeredDuring(work: () => Promise<void>): Promise<Record<string, number>> {
    const before = await world.answered()
    await work()
    const after = await world.answered()
    const grown = [...after].map(([name, count]) => [name, count - (before.get(name) ?? 0)] as const)
    return Object.fromEntries(grown.filter(([, count]) => count > 0))
  }

  test(
    'chats, and the usage record carries the id that it is told',
    async () => {
      const told = await takeOne(chat(world.keys.rich))
      expect(at(told, 'answer')).toMatchObject({
        object: 'chat.completion',
        model: services.chat,
        choices: [{ message: { role: 'assistant', content: expect.stringMatching(/\w/) }, finish_reason: 'length' }],
        usage: { completion_tokens: 8 },
      })
      expect(at(told, 'headers')).toMatchObject({
        'x-request-id': expect.stringMatching(uuid),
        'x-ratelimit-remaining-requests': expect.stringMatching(/^\d+$/),
        'x-ratelimit-reset-requests': expect.stringMatching(/^(\d+[hms])+$/),
        'x-ratelimit-remaining-tokens': expect.stringMatching(/^\d+$/),
        'x-tollgate-cost-nanos': '1000000',
      })
      await recordOf(world.keys.rich, string(at(told, 'headers', 'x-request-id')))
    },
    toolTimeoutMs,
  )

  test('completes text', async () => {
    const told = await takeOne({
      do: 'completion',
      key: world.keys.rich,
      body: { model: services.text, prompt: 'Once', max_tokens: 4 },
    })
    expect(at(told, 'answer')).toMatchObject({
      choices: [{ text: expect.stringMatching(/\w/) }],
      usage: { completion_tokens: 4 },
    })
  })

  test('embeds, in the encoding that the SDK asks for', async () => {
    const told = await takeOne({
      do: 'embedding',
      key: world.keys.rich,
      body: { model: services.embed, input: ['one', 'two'], dimensions: 3 },
    })
    const vectors = list(at(told, 'answer', 'data')).map((each) => at(each, 'embedding'))
    expect(vectors).toEqual([
      [expect.any(Number), expect.any(Number), expect.any(Number)],
      [expect.any(Number), expect.any(Number), expect.any(Number)],
    ])
    expect(vectors[0]).not.toEqual(vectors[1])
  })

  test('lists the models that its key may call, and finds one', async () => {
    const [models, model] = await take(
      { do: 'models', key: world.keys.rich },
      { do: 'model', key: world.keys.rich, body: { model: services.embed } },
    )
    const ids = list(at(models ?? null, 'answer', 'data')).map((each) => at(each, 'id'))
    expect(ids).toEqual([services.chat, services.embed, services.text, services.tools])
    expect(at(model ?? null, 'answer')).toMatchObject({ id: services.embed, object: 'model', owned_by: 'tollgate' })
  })

  test('gets the same answer for an idempotency key, and pays once', async () => {
    const headers = { 'Idempotency-Key': randomUUID() }
    const [first = null, second = null] = await take(
      { ...chat(world.keys.rich), headers },
      { ...chat(world.keys.rich), headers },
    )
    expect(at(second, 'answer')).toEqual(at(first, 'answer'))
    expect(at(second, 'headers')).toMatchObject({
      'idempotent-replayed': 'true',
      'x-request-id': at(first, 'headers', 'x-request-id'),
    })
  })

  describe('raises its own typed error, after one request,', () => {
    const cases: readonly [what: string, step: () => Step, error: Json][] = [
      [
        'for a wrong key',
        () => chat('tg_live_wrong'),
        { name: 'AuthenticationError', status: 401, code: 'invalid_api_key' },
      ],
      [
        'for an unknown model',
        () => chat(world.keys.rich, { model: 'gpt-nothing' }),
        { name: 'NotFoundError', status: 404, code: 'model_not_found', param: 'model' },
      ],
      [
        'for a model that its consumer has no grant for',
        () => chat(world.keys.rich, { model: services.secret }),
        { name: 'PermissionDeniedError', status: 403, code: 'policy_denied' },
      ],
      [
        'for a body that the backend rejects',
        () => chat(world.keys.rich, { messages: [] }),
        { name: 'BadRequestError', status: 400, type: 'invalid_request_error' },
      ],
      [
        'for a month without tokens',
        () => chat(world.keys.empty),
        { name: 'RateLimitError', status: 429, type: 'insufficient_quota', code: 'insufficient_quota' },
      ],
      [
        'for a month without money',
        () => chat(world.keys.poor),
        { name: 'RateLimitError', status: 429, type: 'insufficient_quota', code: 'insufficient_quota' },
      ],
    ]
    test.each(cases)('%s', async (_what, step, error) => {
      const answered = await answeredDuring(async () => {
        const told = await takeOne(step())
        expect(at(told, 'error')).toMatchObject({ ...Object(error), requestId: expect.stringMatching(uuid) })
        expect(at(told, 'error', 'headers', 'x-should-retry')).toBe('false')
      })
      expect(answered[`${chatPath} ${at(error, 'status')}`]).toBe(1)
    })

    test('for a rate limit, when it may not try again', async () => {
      // Two at once exceed one a second, whenever they come.
      const steps = [chat(world.keys.slow), chat(world.keys.slow), chat(world.keys.slow)]
      const told = await take(...steps.map((step) => ({ ...step, maxRetries: 0 })))
      const refused = told.find((each) => Object.hasOwn(Object(each), 'error'))
      expect(at(refused ?? null, 'error')).toMatchObject({
        name: 'RateLimitError',
        status: 429,
        code: 'rate_limit_exceeded',
        headers: {
          'retry-after': '1',
          'retry-after-ms': expect.stringMatching(/^\d+$/),
          'x-should-retry': 'true',
          'x-ratelimit-limit-requests': '1',
          'x-ratelimit-remaining-requests': '0',
        },
      })
    })
  })

  describe('streams', () => {
    const body = { model: services.chat, messages, max_tokens: 8 }

    test('the text that a whole answer has, with usage for who asks for it only', async () => {
      const [whole = null, plain = null, counted = null] = await take(
        chat(world.keys.rich),
        { do: 'stream', key: world.keys.rich, body },
        { do: 'stream', key: world.keys.rich, body: { ...body, stream_options: { include_usage: true } } },
      )
      for (const told of [plain, counted]) {
        expect(textOf(told)).toBe(at(whole, 'answer', 'choices', 0, 'message', 'content'))
        expect(finishOf(told)).toEqual(['length'])
      }
      expect(usageOf(plain)).toEqual([])
      expect(usageOf(counted)).toMatchObject([at(whole, 'answer', 'usage')])
    })

    test('nothing when it is refused, and raises its own typed error', async () => {
      const told = await takeOne({ do: 'stream', key: world.keys.empty, body })
      expect(told).toMatchObject({
        chunks: [],
        error: { name: 'RateLimitError', status: 429, code: 'insufficient_quota' },
      })
    })

    test.each(['cut=3', 'end=3', 'malformed=3'])('what came before a fault (%s), and raises', async (fault) => {
      world.backend.failNext(fault)
      const told = await takeOne({ do: 'stream', key: world.keys.rich, body })
      expect(textOf(told).trim().split(' ')).toHaveLength(3)
      expect(at(told, 'error')).toMatchObject({ name: 'APIError', type: 'server_error' })
    })
  })

  describe('calls tools', () => {
    const first = openAiRequest(services.tools, [])
    const call = { id: 'call_1', type: 'function' as const, function: { name: 'get_weather', arguments: '{}' } }
    const history = openAiHistory({ role: 'assistant', content: null, refusal: null, tool_calls: [call] })
    const second = openAiRequest(services.tools, history)
    const streamed = { do: 'stream', body: first } as const

    afterEach(() => {
      world.toolServer.fault = 'none'
    })

    test('as the model asks, and tells it what they say', async () => {
      const { rich: key } = world.keys
      const [asked = null, told = null] = await take(
        { do: 'chat', key, body: first },
        { do: 'chat', key, body: second },
      )
      const [choice = null] = list(at(asked, 'answer', 'choices'))
      expect(at(choice, 'finish_reason')).toBe('tool_calls')
      const [made = null] = list(at(choice, 'message', 'tool_calls'))
      expect(parseJson(string(at(made, 'function', 'arguments')))).toEqual({ city: 'Zürich' })
      expect(at(told, 'answer', 'choices', 0)).toMatchObject({
        finish_reason: 'stop',
        message: { content: 'It is 21 °C in Zürich.' },
      })
      // What the caller wrote is what the backend reads.
      expect(world.toolServer.received.slice(-2).map(({ body }) => body)).toEqual([first, second])
    })

    test.each([false, true])('in a stream, with usage told: %s', async (isAsked) => {
      const more = isAsked ? { stream_options: { include_usage: true } } : {}
      const told = await takeOne({ ...streamed, key: world.keys.rich, body: { ...first, ...more } })
      expect(textOf(told)).toBe('Let me look.')
      expect(finishOf(told)).toEqual(['tool_calls'])
      expect(calledBy(told)).toEqual({ names: 'get_weather', arguments: '{"city": "Zürich"}' })
      expect(usageOf(told)).toHaveLength(isAsked ? 1 : 0)
    })

    test.each(['cut', 'error_in_stream'] as const)(
      'never with half of their arguments (%s): it raises',
      async (fault) => {
        world.toolServer.fault = fault
        const told = await takeOne({ ...streamed, key: world.keys.rich })
        expect(calledBy(told)).toEqual({ names: 'get_weather', arguments: '{"city": "Zür' })
        expect(at(told, 'error')).toMatchObject({ name: 'APIError', type: 'server_error', code: 'backend_failed' })
      },
    )
  })

  test('comes through a rate limit by its own retries, when our headers tell it to', async () => {
    const answered = await answeredDuring(async () => {
      const told = await take(chat(world.keys.slow), chat(world.keys.slow), chat(world.keys.slow))
      for (const each of told) expect(at(each, 'answer')).toMatchObject({ object: 'chat.completion' })
    })
    expect(answered[`${chatPath} 200`]).toBe(3)
    expect(answered[`${chatPath} 429`]).toBeGreaterThanOrEqual(1)
  })

  test('comes through a failure of the backend', async () => {
    world.backend.failNext('status=503,retry-after=0')
    expect(at(await takeOne(chat(world.keys.rich)), 'answer')).toMatchObject({ object: 'chat.completion' })
  })

  test("is not told that its key is wrong when the backend refuses the gate's own", async () => {
    world.backend.failNext('status=401', 3)
    const told = await takeOne(chat(world.keys.rich))
    expect(at(told, 'error')).toMatchObject({
      name: 'InternalServerError',
      status: 502,
      code: 'backend_credential_refused',
      headers: { 'x-should-retry': 'false' },
    })
    await fetch(`${world.backend.url}/practice/faults`, { method: 'DELETE' })
  })
})

/** Of the chunks of a stream. */
function textOf(told: Json): string {
  return list(at(told, 'chunks'))
    .flatMap((chunk) => list(at(chunk, 'choices')))
    .map((choice) => at(choice, 'delta'))
    .map((delta) => (has(delta, 'content') ? (at(delta, 'content') ?? '') : ''))
    .join('')
}

function finishOf(told: Json): Json[] {
  const choices = list(at(told, 'chunks')).flatMap((chunk) => list(at(chunk, 'choices')))
  return choices.map((choice) => at(choice, 'finish_reason')).filter((reason) => reason !== null)
}

function usageOf(told: Json): Json[] {
  const chunks = list(at(told, 'chunks')).filter((chunk) => has(chunk, 'usage'))
  return chunks.map((chunk) => at(chunk, 'usage')).filter((usage) => usage !== null)
}

/** What the deltas of a stream say of functions, joined. */
function calledBy(told: Json): { readonly names: string; readonly arguments: string } {
  const functions = everywhere(at(told, 'chunks'), 'function').filter((part) => part !== null)
  const joined = (name: string) => functions.map((part) => member(part, name) ?? '').join('')
  return { names: joined('name'), arguments: joined('arguments') }
}

async function recordOf(key: string, requestId: string): Promise<void> {
  const usage = world.tollgate.client(UsageService, key)
  await eventually(async () =>
    (await usage.listUsageRecords({ pageSize: 1000 })).usageRecords.some((record) => record.requestId === requestId),
  )
}
