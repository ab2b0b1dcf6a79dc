import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { isObject } from '../is-object.ts'
import { jsonDocument } from './fixtures/json-documents.ts'
import { errorOf, streamRequest } from './fixtures/stream-fixture.ts'
import { parseObject } from './json.ts'
import { createProvider } from './providers.ts'
import { skimMinBytes, skimObject } from './skim.ts'

/** Short enough that small documents have long values. */
const longBytes = 12

/** The parsed document as skimming may leave it: `skimmed` decides where it has nothing in place of a long value. */
function left(whole: unknown, skimmed: unknown, name = ''): unknown {
  const isUnread = unreadNames.has(name)
  if (skimmed === '' && isUnread && typeof whole === 'string') return ''
  if (Array.isArray(whole)) {
    const isVector =
      name === 'embedding' && whole.length > 0 && !whole.some((each) => typeof each === 'string' || Array.isArray(each))
    if (isVector && Array.isArray(skimmed) && skimmed.length === 0) return []
    return whole.map((each, at) => left(each, Array.isArray(skimmed) ? skimmed[at] : undefined))
  }
  if (!isObject(whole)) return whole
  const inner = isObject(skimmed) ? skimmed : {}
  return Object.fromEntries(Object.entries(whole).map(([key, each]) => [key, left(each, inner[key], key)]))
}

/** The document without what is inside the string, or else the list, that a place is in. */
function emptiedAround(bytes: Buffer, place: number): Buffer {
  let open = -1
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] === 0x5c) at += 1
    else if (bytes[at] === 0x22) {
      if (open >= 0 && at > place) return Buffer.concat([bytes.subarray(0, open + 1), bytes.subarray(at)])
      if (open < 0 && at > place) break
      open = open < 0 ? at : -1
    }
  }
  const [start, end] = [bytes.lastIndexOf('[', place), bytes.indexOf(']', place)]
  return Buffer.concat([bytes.subarray(0, start + 1), bytes.subarray(end)])
}

const unreadNames: ReadonlySet<string> = new Set(['content', 'text', 'embedding', 'data'])

describe('a skimmed document', () => {
  it('is JSON.parse’s own, but for long values that nobody reads', () => {
    let shortened = 0
    const property = fc.property(jsonDocument, (json) => {
      const bytes = Buffer.from(json)
      const whole = parseObject(bytes)
      const { object: skimmed, isWhole } = skimObject(bytes, longBytes) ?? {}
      expect(whole).toBeDefined()
      expect(skimmed).toEqual(left(whole, skimmed))
      if (isWhole) expect(skimmed).toEqual(whole)
      else shortened += 1
    })
    fc.assert(property, { numRuns: 2000 })
    expect(shortened).toBeGreaterThan(200)
  })

  it('is refused where JSON.parse refuses it, wherever it is cut', () => {
    const property = fc.property(jsonDocument, fc.nat(), (json, at) => {
      const bytes = Buffer.from(json.trimEnd())
      const part = bytes.subarray(0, at % bytes.length)
      expect(skimObject(part, longBytes)).toBeUndefined()
    })
    fc.assert(property, { numRuns: 1000 })
  })

  it('that is damaged is refused as by JSON.parse, but for damage inside a value that is left out', () => {
    const property = fc.property(jsonDocument, fc.nat(), fc.integer({ min: 0, max: 255 }), (json, place, byte) => {
      const bytes = Buffer.from(json)
      bytes[place % bytes.length] = byte
      const whole = parseObject(bytes)
      const skimmed = skimObject(bytes, longBytes)?.object
      if (whole !== undefined || skimmed === undefined) expect(skimmed).toEqual(left(whole, skimmed))
      // Nothing but that value is wrong.
      else expect(parseObject(emptiedAround(bytes, place % bytes.length))).toBeDefined()
    })
    fc.assert(property, { numRuns: 3000 })
  })
})

describe('a long answer', () => {
  const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
  const usage = { prompt_tokens: 21, completion_tokens: 9, prompt_tokens_details: { cached_tokens: 8 } }
  // With prose enough around its quotes that it is skipped.
  const trap = `${'and so on, '.repeat(40)}it said {"usage":{"prompt_tokens":1}},"model":"other" and ended.\n`

  const answers = {
    chat: (long: string) => ({
      model: 'm',
      choices: [{ index: 0, message: { role: 'assistant', content: long }, finish_reason: 'length' }],
      usage,
    }),
    'a chat that names its usage first': (long: string) => ({
      usage,
      choices: [
        { finish_reason: 'stop', message: { reasoning_content: long, usage: { prompt_tokens: 2 }, content: 'a' } },
      ],
      model: 'm',
    }),
    'several choices': (long: string) => ({
      choices: [long, `${long}!`].map((content, index) => ({ index, message: { content }, finish_reason: 'stop' })),
      usage,
    }),
    'a call of a tool': (long: string) => ({
      choices: [
        { message: { tool_calls: [{ function: { name: 'f', arguments: long } }] }, finish_reason: 'tool_calls' },
      ],
      usage,
    }),
    completion: (text: string) => ({ model: 'm', choices: [{ text, finish_reason: 'stop' }], usage }),
    embedding: (long: string) => ({ data: [{ embedding: [...long].map((_, at) => at / 7) }], model: 'm', usage }),
    'embedding as text': (long: string) => ({ data: [{ embedding: long }, { embedding: long }], model: 'm', usage }),
    responses: (text: string) => ({
      status: 'completed',
      output: [{ type: 'message', content: [{ type: 'output_text', text }] }],
      usage: { input_tokens: 4, output_tokens: 2 },
    }),
    'without usage': (content: string) => ({ choices: [{ message: { content } }], model: 'm' }),
    'of a choice without a message': (text: string) => ({ choices: [{ text }], usage }),
    'of no choices': (content: string) => ({ content, choices: [], usage }),
    'with counts in words': (content: string) => ({
      choices: [{ message: { content } }],
      usage: { prompt_tokens: content },
    }),
    'that is an error': (content: string) => ({
      content,
      error: { message: content, code: 'context_length_exceeded' },
    }),
  }

  test.each(Object.entries(answers))('%s is read as a short one', (name, write) => {
    const kind = name.startsWith('embedding')
      ? 'embedding'
      : name === 'completion' || name === 'responses'
        ? name
        : 'chat'
    const request = streamRequest({}, { mode: 'unary', kind })
    const read = (long: string): unknown => {
      const bytes = Buffer.from(JSON.stringify(write(long)))
      if (long.length > trap.length) expect(bytes.length).toBeGreaterThan(skimMinBytes)
      try {
        const { body, tokens, usageSource, ...facts } = openai.readAnswer(bytes, request)
        expect(body).toBe(bytes)
        return { ...facts, usageSource, tokens: usageSource === 'provider' ? tokens : undefined }
      } catch {
        return errorOf(() => openai.readAnswer(bytes, request)).message
      }
    }
    expect(read(trap.repeat(40))).toEqual(read(trap))
    expect(read('“so” '.repeat(3000))).toEqual(read(trap))
    expect(read('"'.repeat(9000))).toEqual(read(trap))
  })

  const others = {
    anthropic: (text: string) => ({
      model: 'm',
      content: [
        { type: 'thinking', thinking: text, signature: text },
        { type: 'text', text },
      ],
      stop_reason: 'max_tokens',
      usage: { input_tokens: 4, output_tokens: 2 },
    }),
    gemini: (text: string) => ({
      candidates: [{ content: { parts: [{ text }, { functionCall: { name: 'f', args: {} } }] }, finishReason: 'STOP' }],
      usageMetadata: { promptTokenCount: 4, candidatesTokenCount: 2 },
      modelVersion: 'm',
    }),
    ollama: (content: string) => ({
      model: 'm',
      message: { role: 'assistant', content },
      done: true,
      done_reason: 'length',
      prompt_eval_count: 4,
      eval_count: 2,
    }),
  }

  test.each(['anthropic', 'gemini', 'ollama'] as const)('of %s is read as a short one', (protocol) => {
    const provider = createProvider({ protocol, defaultMaxOutputTokens: 1024 })
    const read = (long: string): unknown => {
      const answer = Buffer.from(JSON.stringify(others[protocol](long)))
      const { body, ...facts } = provider.readAnswer(answer, streamRequest({}, { mode: 'unary' }))
      expect(body).toBe(answer)
      return facts
    }
    expect(read(trap.repeat(40))).toEqual(read(trap))
    expect(read(trap)).toMatchObject({ model: 'm', tokens: { input: 4, output: 2 }, usageSource: 'provider' })
  })

  test.each(['anthropic', 'gemini'] as const)('of %s keeps its text when it is translated', (protocol) => {
    const provider = createProvider({ protocol, defaultMaxOutputTokens: 1024 })
    const answer = Buffer.from(JSON.stringify(others[protocol](trap.repeat(40))))
    const { body } = provider.readAnswer(answer, streamRequest({}, { mode: 'unary', dialect: 'openai' }))
    expect(JSON.parse(Buffer.from(body).toString())).toMatchObject({
      choices: [{ message: { content: trap.repeat(40) } }],
    })
  })

  test.each([
    ['cut', (json: string) => json.slice(0, -1)],
    ['followed by more', (json: string) => `${json}}`],
    ['with a line break in its text', (json: string) => json.replace('said', '\n')],
    ['with a byte that is no UTF-8', (json: string) => json.replace('said', '\u00ff')],
    ['with a text that is not closed', (json: string) => json.replace('"},', '},')],
  ])('that is %s is invalid', (_, damage) => {
    const json = damage(JSON.stringify(answers.chat(trap.replaceAll('"', '').repeat(40))))
    const request = streamRequest({}, { mode: 'unary' })
    const error = errorOf(() => openai.readAnswer(Buffer.from(json, 'latin1'), request))
    expect(error.reason).toBe('BACKEND_ANSWER_INVALID')
  })
})

describe('a long request', () => {
  const prose = 'A gate that counts every call knows what each of them was worth.\n'
  const code = 'if (a["key"] === "x") return b["y"]\n'
  const chat = (text: string) => ({
    model: 'm',
    messages: [
      { role: 'system', content: 'Be brief.' },
      {
        role: 'user',
        content: [
          { type: 'text', text },
          { type: 'image_url', image_url: { url: text } },
        ],
      },
    ],
    max_tokens: 32,
    n: 2,
  })
  const requests = {
    'openai chat': chat,
    'openai completion': (prompt: string) => ({ prompt, max_tokens: 32, best_of: 3, model: 'm' }),
    'openai completion of several prompts': (text: string) => ({ prompt: [text, text], max_tokens: 32, model: 'm' }),
    'openai embedding': (input: string) => ({ input, model: 'm' }),
    'openai responses': (input: string) => ({ input, instructions: input, max_output_tokens: 32, model: 'm' }),
    'openai generic': (text: string) => ({ query: text, model: 'm' }),
    'grpc chat': chat,
    'anthropic chat': (text: string) => ({ model: 'm', system: text, messages: [{ content: text }], max_tokens: 32 }),
    'gemini chat': (text: string) => ({
      contents: [{ parts: [{ text }, { inlineData: { data: text } }] }],
      generationConfig: { maxOutputTokens: 32, candidateCount: 2 },
    }),
    'ollama completion': (prompt: string) => ({ model: 'm', prompt, options: { num_predict: 32 }, stream: false }),
  }

  test.each(Object.entries(requests))('of %s is read as a short one', (name, write) => {
    const protocol = protocolOf(name)
    const provider = createProvider({ protocol, defaultMaxOutputTokens: 1024 })
    const read = (text: string): unknown => {
      const payload = Buffer.from(JSON.stringify(write(text)))
      const { body, payloadBytes, ...facts } = provider.readRequest({
        payload,
        mode: 'unary',
        dialect: 'native',
        startMs: 0,
      })
      expect(body).toBe(payload)
      expect(payloadBytes).toBe(payload.length)
      return facts
    }
    expect(read(prose.repeat(400))).toEqual(read(prose))
    expect(read(code.repeat(400))).toEqual(read(prose))
    expect(read('“so” '.repeat(3000))).toEqual(read(prose))
  })

  test.each(['anthropic', 'gemini'] as const)('for %s keeps its text when it is translated', (protocol) => {
    const provider = createProvider({ protocol, defaultMaxOutputTokens: 1024 })
    const text = prose.repeat(400)
    const payload = Buffer.from(JSON.stringify({ model: 'm', messages: [{ role: 'user', content: text }] }))
    const { body } = provider.readRequest({ payload, mode: 'unary', dialect: 'openai', startMs: 0 })
    expect(Buffer.from(body).toString()).toContain(JSON.stringify(text))
  })

  test('is passed on where nothing is wrong but the spelling of a long text', () => {
    const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
    const payload = Buffer.from(JSON.stringify(chat(prose.repeat(400))).replace('A gate', '\\x A gate'))
    const { body, model } = openai.readRequest({ payload, mode: 'unary', dialect: 'native', startMs: 0 })
    expect(body).toBe(payload)
    expect(model).toBe('m')
  })

  test('that is cut, or has a count that is none, is refused', () => {
    const openai = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 1024 })
    const json = JSON.stringify(chat(prose.repeat(400)))
    for (const wrong of [json.slice(0, -1), `${json}}`, json.replace('"n":2', '"n":"2"')]) {
      const request = { payload: Buffer.from(wrong), mode: 'unary', dialect: 'native', startMs: 0 } as const
      expect(errorOf(() => openai.readRequest(request)).reason).toBe('INVALID_ARGUMENT')
    }
  })
})

function protocolOf(name: string): 'openai' | 'grpc' | 'anthropic' | 'gemini' | 'ollama' {
  const protocols = ['openai', 'grpc', 'anthropic', 'gemini', 'ollama'] as const
  const protocol = protocols.find((each) => name.startsWith(each))
  if (protocol === undefined) throw new Error(`${name} names no protocol`)
  return protocol
}
