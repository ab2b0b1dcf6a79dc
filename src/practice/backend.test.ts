import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type PracticeBackend, startPracticeBackend } from './backend.ts'
import { type PracticeRecord, readPracticeLog } from './log.ts'

let folder: string
let logPath: string
let backend: PracticeBackend

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'practice-'))
  logPath = join(folder, 'backend.log')
  backend = await startPracticeBackend({ logPath })
})

afterEach(async () => {
  await backend.close()
  expect(backend.stats().inFlight).toBe(0)
  rmSync(folder, { recursive: true })
})

const chat = { model: 'practice', messages: [{ role: 'user', content: 'Grüße' }], max_tokens: 20 }

function post(body: object, headers: Record<string, string> = {}, path = '/v1/chat/completions', signal?: AbortSignal) {
  return fetch(backend.url + path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...headers },
    signal: signal ?? AbortSignal.timeout(20_000),
  })
}

/** Reads a stream as far as it goes: the parsed events, the last of them "broken" where an event is no JSON. */
async function readEvents(response: Response): Promise<{ events: unknown[]; done: boolean; failed: boolean }> {
  let text = ''
  let failed = false
  try {
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
  } catch {
    failed = true
  }
  const lines = text.split('\n\n').filter((line) => line !== '')
  const events = lines
    .filter((line) => line !== 'data: [DONE]')
    .map((line): unknown => {
      try {
        return JSON.parse(line.slice('data: '.length))
      } catch {
        return 'broken'
      }
    })
  return { events, done: lines.at(-1) === 'data: [DONE]', failed }
}

async function lastRecord(outcome: string): Promise<PracticeRecord> {
  return await vi.waitFor(
    () => {
      const record = readPracticeLog(logPath).at(-1)
      if (record?.outcome !== outcome) throw new Error(`the last line is ${record?.outcome}`)
      return record
    },
    { timeout: 20_000 },
  )
}

describe('answers', () => {
  it('gives equal requests equal bytes', async () => {
    const texts = await Promise.all([post(chat), post(chat)].map(async (answer) => (await answer).text()))
    expect(texts[0]).toBe(texts[1])
    expect(await (await post({ ...chat, messages: [{ role: 'user', content: 'x' }] })).text()).not.toBe(texts[0])
  })

  it('counts a prompt by its UTF-8 bytes and a completion by its maximum', async () => {
    const answer: unknown = await (await post(chat)).json()
    expect(answer).toMatchObject({
      object: 'chat.completion',
      model: 'practice',
      usage: {
        prompt_tokens: 2,
        total_tokens: expect.any(Number),
        prompt_tokens_details: { cached_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    })
    const capped: unknown = await (await post({ ...chat, max_tokens: 3 })).json()
    expect(capped).toMatchObject({
      usage: { prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 },
      choices: [{ finish_reason: 'length' }],
    })
    expect(readPracticeLog(logPath).at(-1)?.usage).toMatchObject({ promptTokens: 2, completionTokens: 3 })
  })

  it('reports exactly the usage that a header or a model name demands', async () => {
    const usage = {
      prompt_tokens: 1000,
      completion_tokens: 500,
      total_tokens: 1500,
      prompt_tokens_details: { cached_tokens: 300 },
      completion_tokens_details: { reasoning_tokens: 200 },
    }
    const words = 'in=1000,out=500,cached=300,reasoning=200'
    expect(await (await post(chat, { 'x-practice-usage': words })).json()).toMatchObject({ usage })
    expect(await (await post({ ...chat, model: `practice:${words}` })).json()).toMatchObject({ usage })
    expect(readPracticeLog(logPath).map((record) => record.usage)).toEqual(
      Array(2).fill({ promptTokens: 1000, completionTokens: 500, cachedTokens: 300, reasoningTokens: 200 }),
    )
  })

  it('streams the text of the unary answer, with usage only for callers who asked', async () => {
    const unary: unknown = await (await post(chat)).json()
    const asked = await readEvents(await post({ ...chat, stream: true, stream_options: { include_usage: true } }))
    const silent = await readEvents(await post({ ...chat, stream: true }))
    expect(asked).toMatchObject({ done: true, failed: false })
    expect(asked.events.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 2 } })
    expect(asked.events[0]).toMatchObject({ object: 'chat.completion.chunk', usage: null })
    expect(JSON.stringify(silent.events)).not.toContain('usage')
    const content = asked.events.map((event) => /"content":"([^"]*)"/.exec(JSON.stringify(event))?.[1] ?? '').join('')
    expect(unary).toMatchObject({ choices: [{ message: { content } }] })
  })

  it('answers text completions, embeddings, models and health', async () => {
    const text: unknown = await (await post({ model: 'm', prompt: [1, 2, 3] }, {}, '/v1/completions')).json()
    expect(text).toMatchObject({ object: 'text_completion', usage: { prompt_tokens: 3 } })
    const vectors: unknown = await (
      await post({ model: 'm', input: ['abcd', 'efgh'], dimensions: 2 }, {}, '/v1/embeddings')
    ).json()
    expect(vectors).toMatchObject({
      data: [{ embedding: [expect.any(Number), expect.any(Number)] }, { index: 1 }],
      usage: { prompt_tokens: 2, total_tokens: 2 },
    })
    expect((await fetch(`${backend.url}/healthz`)).status).toBe(200)
    expect(await (await fetch(`${backend.url}/v1/models`)).json()).toMatchObject({ data: [{ id: 'practice' }] })
    expect((await fetch(`${backend.url}/nothing`)).status).toBe(404)
  })

  it.each([
    ['no JSON', 'x'],
    ['no model', '{"messages":[]}'],
    ['no messages', '{"model":"m"}'],
    ['an unknown fault', JSON.stringify({ ...chat, model: 'practice:explode' })],
  ])('refuses %s', async (_, body) => {
    const answer = await fetch(`${backend.url}/v1/chat/completions`, { method: 'POST', body })
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({ error: { type: 'invalid_request_error' } })
    expect(readPracticeLog(logPath).at(-1)?.outcome).toBe('rejected')
  })

  it('refuses a body of more than 16 MiB and stays usable', async () => {
    const answer = await post({ ...chat, padding: 'x'.repeat(16 * 1024 * 1024) })
    expect(answer.status).toBe(413)
    await answer.text()
    expect((await post(chat)).status).toBe(200)
  })
})

describe('faults', () => {
  it('answers with a status, with retry-after where it belongs', async () => {
    const busy = await post(chat, { 'x-practice-fault': 'status=429,retry-after=7' })
    expect([busy.status, busy.headers.get('retry-after')]).toEqual([429, '7'])
    expect((await post({ ...chat, model: 'practice:status=503' })).headers.get('retry-after')).toBe('1')
    const ofAddress = '/v1/chat/completions?fault=status%3D503%2Cretry-after%3D9'
    expect((await post(chat, {}, ofAddress)).headers.get('retry-after')).toBe('9')
    const failed = await post({ ...chat, model: 'practice:status=500' })
    expect([failed.status, failed.headers.get('retry-after')]).toEqual([500, null])
    expect(readPracticeLog(logPath).map((record) => [record.outcome, record.usage])).toEqual(
      Array(4).fill(['status', null]),
    )
  })

  it('resets the connection before headers', async () => {
    await expect(post(chat, { 'x-practice-fault': 'reset' })).rejects.toMatchObject({ cause: { code: 'ECONNRESET' } })
    expect(readPracticeLog(logPath).map((record) => record.outcome)).toEqual(['reset'])
  })

  it.each(['silence', 'stall', 'delay=60000', 'slow-first-token=60000'])(
    '%s keeps quiet until the caller leaves',
    async (fault) => {
      const leave = new AbortController()
      const answered = post({ ...chat, stream: true }, { 'x-practice-fault': fault }, undefined, leave.signal)
        .then((answer) => answer.text())
        .then(() => 'answered')
        .catch(() => 'left')
      await vi.waitFor(() => expect(backend.stats().inFlight).toBe(1), { timeout: 20_000 })
      if (!fault.startsWith('delay')) await vi.waitFor(() => expect(readPracticeLog(logPath)).toHaveLength(1))
      leave.abort()
      expect(await answered).toBe('left')
      expect(await lastRecord('aborted')).toMatchObject({ usage: null })
      expect(backend.stats()).toMatchObject({ aborted: 1, inFlight: 0 })
    },
  )

  it('cuts a stream after n tokens, and a unary answer in its half', async () => {
    const cut = await readEvents(await post({ ...chat, stream: true }, { 'x-practice-fault': 'cut=2' }))
    expect(cut).toMatchObject({ failed: true, done: false })
    expect(cut.events).toHaveLength(3)
    expect(await lastRecord('cut')).toMatchObject({ usage: null, deliveredTokens: 2 })
    await expect((await post(chat, { 'x-practice-fault': 'cut' })).text()).rejects.toThrow()
  })

  it('ends a stream early and cleanly', async () => {
    const ended = await readEvents(await post({ ...chat, stream: true }, { 'x-practice-fault': 'end=2' }))
    expect(ended).toMatchObject({ failed: false, done: false, events: { length: 3 } })
  })

  it('breaks one event of a stream, and the JSON of a unary answer', async () => {
    const broken = await readEvents(await post({ ...chat, stream: true }, { 'x-practice-fault': 'malformed=2' }))
    expect(broken.done).toBe(true)
    expect(broken.events.map((event) => event === 'broken').indexOf(true)).toBe(3)
    await expect((await post(chat, { 'x-practice-fault': 'malformed' })).json()).rejects.toThrow(SyntaxError)
  })

  it('leaves the usage out', async () => {
    expect(await (await post({ ...chat, model: 'practice:missing-usage' })).json()).not.toHaveProperty('usage')
    expect(readPracticeLog(logPath).at(-1)).toMatchObject({ outcome: 'missing-usage', usage: null })
  })

  it('answers 200 with HTML, or with nothing', async () => {
    const page = await post(chat, { 'x-practice-fault': 'html' })
    expect([page.status, page.headers.get('content-type'), (await page.text())[0]]).toEqual([
      200,
      'text/html; charset=utf-8',
      '<',
    ])
    const empty = await post(chat, { 'x-practice-fault': 'empty' })
    expect([empty.status, await empty.text()]).toEqual([200, ''])
  })

  it('fails the first n calls of an id', async () => {
    const statuses: number[] = []
    for (const id of ['a', 'a', 'b', 'a', 'a'])
      statuses.push((await post({ ...chat, model: `practice:fail-first=2,id=${id},status=502` })).status)
    expect(statuses).toEqual([502, 502, 502, 200, 200])
  })

  it('fails the next n calls on demand, and forgets on demand', async () => {
    await post({ fault: 'status=500', times: 2 }, {}, '/practice/faults')
    backend.failNext('status=502')
    const statuses: number[] = []
    for (let call = 0; call < 4; call += 1) statuses.push((await post(chat)).status)
    expect(statuses).toEqual([500, 500, 502, 200])
    backend.failNext('status=500')
    await fetch(`${backend.url}/practice/faults`, { method: 'DELETE' })
    expect((await post(chat)).status).toBe(200)
    expect((await post({ fault: 'nonsense' }, {}, '/practice/faults')).status).toBe(400)
  })
})

describe('log', () => {
  it('has the line of a call before the call has its answer', async () => {
    for (let call = 1; call <= 20; call += 1) {
      const answer = await post({ ...chat, stream: call % 2 === 0 }, { 'x-request-id': `r${call}` })
      expect(readPracticeLog(logPath).at(-1)).toMatchObject({ seq: call, requestId: `r${call}`, outcome: 'served' })
      await answer.text()
    }
  })

  it('keeps the ids of the call, and counts the tokens that a caller got before it left', async () => {
    const leave = new AbortController()
    const answer = await post(
      { ...chat, stream: true },
      { 'x-practice-fault': 'stall=3', 'x-request-id': 'r', 'x-tollgate-attempt-id': 'a' },
      undefined,
      leave.signal,
    )
    const reader = answer.body?.getReader()
    let text = ''
    while (text.split('\n\n').length < 5) text += new TextDecoder().decode((await reader?.read())?.value)
    leave.abort()
    expect(await lastRecord('aborted')).toMatchObject({ seq: 1, requestId: 'r', attemptId: 'a', deliveredTokens: 3 })
    await expect(reader?.read()).rejects.toThrow()
  })

  it('has a line for a caller that left in the middle of its body', async () => {
    const upload = httpRequest(`${backend.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-length': '1000' },
    })
    upload.on('error', () => {})
    upload.write('{')
    await vi.waitFor(() => expect(backend.stats().inFlight).toBe(1), { timeout: 20_000 })
    upload.destroy()
    expect(await lastRecord('aborted')).toMatchObject({ seq: 1, model: null })
  })

  it('goes on counting after a restart, without the half line of a crash', async () => {
    await (await post(chat)).text()
    await backend.close()
    writeFileSync(logPath, '{"seq":2,"outc', { flag: 'a' })
    expect(readPracticeLog(logPath)).toHaveLength(1)
    backend = await startPracticeBackend({ logPath })
    await (await post(chat)).text()
    expect(readPracticeLog(logPath).map((record) => record.seq)).toEqual([1, 2])
    expect(readFileSync(logPath, 'utf8').split('\n')).toHaveLength(3)
  })
})
