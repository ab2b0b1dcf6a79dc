import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { serviceRecord } from '../../test/support/registry-records.ts'
import { cacheKeyOf, compact, createResponseCache } from './response-cache.ts'

const policy = { ttlMs: 1_000, sharing: 'organization' } as const

function answerOf(bytes: number) {
  return { body: new Uint8Array(bytes), model: 'm', finishReason: 'stop' } as const
}

describe('a response cache', () => {
  test('forgets an answer when its time is over', () => {
    let nowMs = 0
    const cache = createResponseCache(65_536, () => nowMs)
    cache.set('a', answerOf(1), policy)
    nowMs = 999
    expect(cache.get('a')).toEqual(answerOf(1))
    nowMs = 1_000
    expect(cache.get('a')).toBeUndefined()
    expect(cache.size()).toEqual({ bytes: 0, answers: 0 })
  })

  test('never holds more than it may, and keeps what was used last', () => {
    const action = fc.record({
      key: fc.integer({ min: 0, max: 30 }),
      bytes: fc.integer({ min: 0, max: 900 }),
      isSet: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(action), (actions) => {
        const cache = createResponseCache(16_384, () => 0)
        for (const { key, bytes, isSet } of actions) {
          if (!isSet) cache.get(String(key))
          else {
            cache.set(String(key), answerOf(bytes), policy)
            expect(cache.get(String(key)) !== undefined).toBe(bytes + 512 <= 1_024)
          }
          const { bytes: held, answers } = cache.size()
          expect(held).toBeLessThanOrEqual(16_384)
          expect(held).toBeGreaterThanOrEqual(answers * 512)
        }
      }),
    )
  })

  test('of no size keeps nothing', () => {
    const cache = createResponseCache(0, () => 0)
    cache.set('a', answerOf(0), policy)
    expect(cache.get('a')).toBeUndefined()
  })

  test('holds no more of a chunk than the answer', () => {
    const cache = createResponseCache(65_536, () => 0)
    cache.set('a', { ...answerOf(0), body: Buffer.alloc(60_000).subarray(0, 10) }, policy)
    expect(cache.get('a')?.body.buffer.byteLength).toBe(10)
  })
})

describe('the key of a request', () => {
  const service = serviceRecord({})
  const consumer = { id: 'c', organizationId: 'o' } as const
  const keyOf = (
    json: string,
    changes: {
      readonly mode?: 'stream'
      readonly who?: object
      readonly sharing?: 'consumer' | 'everyone'
      readonly request?: object
      readonly service?: object
    } = {},
  ) => {
    const request = {
      consumerId: 'c',
      serviceId: 's',
      payload: Buffer.from(json),
      metadata: {},
      idempotencyKey: '',
      dialect: 'native',
      ...changes.request,
    } as const
    const full = {
      name: '',
      tier: 'basic',
      status: 'active',
      grantedServices: new Set<string>(),
      overrides: {},
      projectId: undefined,
      clearance: 'internal',
      homeRegion: '',
      ...consumer,
      ...changes.who,
    } as const
    return cacheKeyOf(
      request,
      changes.mode ?? 'unary',
      full,
      { ...service, ...changes.service },
      {
        ...policy,
        sharing: changes.sharing ?? 'organization',
      },
    )
  }

  test('is the same for any white space between tokens', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom('\t', '  ', '\n'), (value, indent) => {
        expect(keyOf(JSON.stringify(value, null, indent))).toBe(keyOf(JSON.stringify(value)))
      }),
    )
  })

  test('is another one for whatever a backend could tell apart', () => {
    const requests = [
      '{"a":1}',
      '{"a":1.0}',
      '{"a":1,"a":1}',
      '{"a":"1"}',
      '{"a":" 1"}',
      '{"a":9007199254740992}',
      '{"a":9007199254740993}',
      '{"a":"\\" "}',
      '{"a":"\\"  "}',
      '{"b":1,"a":1}',
      '{"a":1,"b":1}',
    ]
    expect(new Set(requests.map((json) => keyOf(json))).size).toBe(requests.length)
  })

  test.each([
    { request: { dialect: 'openai' } },
    { request: { dialect: 'openai', kind: 'embeddings' } },
    { service: { id: 's2' } },
    { service: { version: '9.9.9' } },
  ])('is another one for %j', (change) => {
    const keys = new Set([keyOf('{}'), keyOf('{}', { request: { dialect: 'openai', kind: 'chat' } })])
    expect(keys).not.toContain(keyOf('{}', change))
  })

  test('is another one for another mode, and for whoever does not share answers', () => {
    const other = { who: { id: 'd' } }
    const foreign = { who: { organizationId: 'p' } }
    expect(keyOf('{}', { mode: 'stream' })).not.toBe(keyOf('{}'))
    expect(keyOf('{}', other)).toBe(keyOf('{}'))
    expect(keyOf('{}', foreign)).not.toBe(keyOf('{}'))
    expect(keyOf('{}', { ...other, sharing: 'consumer' })).not.toBe(keyOf('{}', { sharing: 'consumer' }))
    expect(keyOf('{}', { ...foreign, sharing: 'everyone' })).toBe(keyOf('{}', { sharing: 'everyone' }))
  })
})

test('white space goes, and nothing within strings', () => {
  const json = ' {\n "a b" : [ 1 , "\\" x\\\\" , "\\\\" ] }\r\n'
  expect(Buffer.from(compact(Buffer.from(json))).toString()).toBe('{"a b":[1,"\\" x\\\\","\\\\"]}')
})
