import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { errorOf, streamRequest } from './fixtures/stream-fixture.ts'
import { parsePointer, resolvePointer } from './json-pointer.ts'
import type { CallerRequest } from './provider.ts'
import { createProvider, type ProviderSettings } from './providers.ts'

const pointers = {
  inputTokens: '/meta/in',
  cachedInputTokens: '/meta/cached',
  outputTokens: '/meta/out',
  reasoningOutputTokens: '/meta/thought',
  answerModel: '/meta/models/0',
  finishReason: '/why~1not',
  maxOutputTokens: '/config/limit',
  requestModel: '/config/model',
}
const settings: ProviderSettings = { protocol: 'json', defaultMaxOutputTokens: 1024, pointers }
const json = createProvider(settings)

function caller(body: string, more: Partial<CallerRequest> = {}): CallerRequest {
  return { payload: Buffer.from(body), mode: 'unary', dialect: 'native', startMs: 0, ...more }
}

describe('plain JSON', () => {
  it('passes as it came, to the URL as it stands', () => {
    const request = caller('{"config":{"limit":7,"model":"m"},"x":1e400}')
    const read = json.readRequest(request)
    expect(read).toMatchObject({ kind: 'generic', maxOutputTokens: 7, model: 'm' })
    const prepared = json.prepare(read, { url: 'https://a.test/v1?x=1', model: 'other', credential: 'k' })
    expect(prepared).toMatchObject({ url: 'https://a.test/v1?x=1', headers: { authorization: 'Bearer k' } })
    expect(prepared.body).toBe(request.payload)
  })

  test.each([
    ['a limit that is none', caller('{"config":{"limit":"many"}}'), 'config.limit'],
    ['a stream', caller('{}', { mode: 'stream' }), ''],
    ['the OpenAI API', caller('{}', { dialect: 'openai' }), ''],
    ['no object', caller('[]'), ''],
  ])('is refused for %s', (_, request, param) => {
    expect(errorOf(() => json.readRequest(request))).toMatchObject({ reason: 'INVALID_ARGUMENT', metadata: { param } })
  })

  const request = streamRequest({}, { kind: 'generic', mode: 'unary' })
  const read = (answer: string) => json.readAnswer(Buffer.from(answer), request)

  it('tells usage where the pointers say', () => {
    const answer = '{"meta":{"in":9,"cached":4,"out":5,"thought":2,"models":["m1"]},"why/not":"done"}'
    expect(read(answer)).toMatchObject({
      tokens: { input: 5, cachedInput: 4, cacheWriteInput: 0, output: 3, reasoningOutput: 2 },
      usageSource: 'provider',
      model: 'm1',
      finishReason: 'done',
    })
  })

  it('without usage is estimated and says so', () => {
    expect(read('{"meta":{}}')).toMatchObject({ usageSource: 'estimated', tokens: { input: 20, output: 3 } })
  })

  test.each([
    ['a negative count', '{"meta":{"in":-1}}', 'BACKEND_ANSWER_INVALID'],
    ['more cached than all', '{"meta":{"in":1,"cached":2}}', 'BACKEND_ANSWER_INVALID'],
    ['no JSON', '<html>', 'BACKEND_ANSWER_INVALID'],
    ['an error', '{"error":{"code":"internal"}}', 'BACKEND_FAILED'],
  ])('that is %s is an error', (_, answer, reason) => {
    expect(errorOf(() => read(answer)).reason).toBe(reason)
  })

  it('is not to be had with a pointer that is none', () => {
    const error = errorOf(() => createProvider({ ...settings, pointers: { inputTokens: 'usage' } }))
    expect(error).toMatchObject({ reason: 'INVALID_ARGUMENT', metadata: { field: 'inputTokens' } })
  })
})

describe('a JSON Pointer', () => {
  /** The examples of RFC 6901 §5. */
  const document = { foo: ['bar', 'baz'], '': 0, 'a/b': 1, 'm~n': 8, ' ': 7 }
  test.each([
    ['', document],
    ['/foo', ['bar', 'baz']],
    ['/foo/0', 'bar'],
    ['/', 0],
    ['/a~1b', 1],
    ['/m~0n', 8],
    ['/ ', 7],
    ['/foo/2', undefined],
    ['/foo/00', undefined],
    ['/foo/length', undefined],
    ['/constructor', undefined],
  ])('%j points at %j', (text, value) => {
    expect(resolvePointer(parsePointer(text) ?? ['none'], document)).toEqual(value)
  })

  test.each(['foo', '/~', '/~2'])('is not %j', (text) => {
    expect(parsePointer(text)).toBeUndefined()
  })

  it('finds any member by its escaped name', () => {
    fc.assert(
      fc.property(fc.string(), fc.jsonValue(), (name, value) => {
        const pointer = `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
        const holder = Object.fromEntries([[name, value]])
        expect(resolvePointer(parsePointer(pointer) ?? [], holder)).toBe(value)
      }),
    )
  })
})
