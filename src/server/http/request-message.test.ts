import { type DescMethod, toJson } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import { ConsumptionService } from '../../../gen/marketplace/v1/consumption_pb.ts'
import { MarketplaceApi } from '../../../gen/marketplace/v1/marketplace_api_pb.ts'
import { TollgateError } from '../../errors.ts'
import { bindingsOf } from './binding.ts'
import { get, post, rpc, thingsService } from './fixture-service.ts'
import { requestMessage } from './request-message.ts'
import { RouteTable } from './route-table.ts'

type Rule = Parameters<typeof rpc>[1]

/** What a request says of a `Thing`, as JSON. */
function read(rule: Rule, url: string, body: string | Uint8Array = ''): unknown {
  const [binding] = thingsService([rpc('A', rule)]).methods.flatMap(bindingsOf)
  if (binding === undefined) throw new Error('no binding')
  const table = new RouteTable<typeof binding>()
  table.add(binding)
  const found = table.find(url.split('?', 1)[0] ?? '')
  if (found === undefined) throw new Error(`${url} does not match`)
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  const { segments } = found
  const message = requestMessage(binding, { segments, url, contentType: 'text/odd', body: bytes })
  return toJson(binding.method.input, message)
}

/** What is refused of a body for an RPC of the contract. */
function refusalOf(method: DescMethod, url: string, body: string): unknown {
  const [binding] = bindingsOf(method)
  if (binding === undefined) throw new Error('no binding')
  const segments = url.slice(1).split('/')
  try {
    requestMessage(binding, { segments, url, contentType: 'application/json', body: Buffer.from(body) })
  } catch (error) {
    if (error instanceof TollgateError && error.reason === 'INVALID_ARGUMENT') return error.fields
    throw error
  }
  return undefined
}

function refusal(rule: Rule, url: string, body?: string | Uint8Array): unknown {
  try {
    read(rule, url, body)
  } catch (error) {
    if (error instanceof TollgateError && error.reason === 'INVALID_ARGUMENT') return error.fields
    throw error
  }
  return undefined
}

const list = get('/v1/things')
const one = get('/v1/things/{id}')
const whole = post('/v1/things/{id}')
const inside = post('/v1/things/{part.name}/x', 'part')

describe('parameters', () => {
  test.each<[rule: Rule, url: string, json: unknown]>([
    [list, '/v1/things', {}],
    [list, '/v1/things?', {}],
    [list, '/v1/things?&&', {}],
    [list, '/v1/things?count=7', { count: 7 }],
    [list, '/v1/things?count=-2147483648', { count: -2147483648 }],
    [list, '/v1/things?big=9223372036854775807', { big: '9223372036854775807' }],
    [list, '/v1/things?unsigned=18446744073709551615', { unsigned: '18446744073709551615' }],
    [list, '/v1/things?wrapped=9007199254740993', { wrapped: '9007199254740993' }],
    [list, '/v1/things?isOn=true', { isOn: true }],
    [list, '/v1/things?is_on=true', { isOn: true }],
    [list, '/v1/things?ratio=1.5e3', { ratio: 1500 }],
    [list, '/v1/things?ratio=-Infinity', { ratio: '-Infinity' }],
    [list, '/v1/things?color=COLOR_RED', { color: 'COLOR_RED' }],
    [list, '/v1/things?color=2', { color: 'COLOR_BLUE' }],
    [list, '/v1/things?tags=a&tags=b&tags=a', { tags: ['a', 'b', 'a'] }],
    [list, '/v1/things?tags=', { tags: [''] }],
    [list, '/v1/things?colors=COLOR_RED&colors=2', { colors: ['COLOR_RED', 'COLOR_BLUE'] }],
    [list, '/v1/things?at=2026-11-21T10:00:00Z', { at: '2026-11-21T10:00:00Z' }],
    [list, '/v1/things?at=2026-11-21T10:00:00%2B01:00', { at: '2026-11-21T09:00:00Z' }],
    [list, '/v1/things?lasting=1.5s', { lasting: '1.500s' }],
    [list, '/v1/things?mask=displayName,part.size', { mask: 'displayName,part.size' }],
    [list, '/v1/things?part.inner.size=3&part.name=x', { part: { name: 'x', inner: { size: 3 } } }],
    [list, '/v1/things?raw=AQID', { raw: 'AQID' }],
    [list, '/v1/things?left=x', { left: 'x' }],
    [list, '/v1/things?display_name=a+b%26c%3Dd', { displayName: 'a b&c=d' }],
    [list, '/v1/things?display_name=a=b?c', { displayName: 'a=b?c' }],
    [list, '/v1/things?display%5Fname=%F0%9F%98%80', { displayName: '😀' }],
    [one, '/v1/things/a%2Fb?count=1', { id: 'a/b', count: 1 }],
    [one, '/v1/things/..', { id: '..' }],
    [get('/v1/things/{count}'), '/v1/things/12', { count: 12 }],
    [get('/v1/things/{color}'), '/v1/things/COLOR_RED', { color: 'COLOR_RED' }],
    [get('/v1/{display_name=things/*}'), '/v1/things/a%20b', { displayName: 'things/a b' }],
  ])('%o: %s', (rule, url, json) => {
    expect(read(rule, url)).toEqual(json)
  })
})

describe('bodies', () => {
  test.each<[rule: Rule, url: string, body: string, json: unknown]>([
    [whole, '/v1/things/7', '', { id: '7' }],
    [whole, '/v1/things/7', '{}', { id: '7' }],
    [
      whole,
      '/v1/things/7',
      ' {"displayName":"x","big":"9007199254740993"} ',
      { id: '7', displayName: 'x', big: '9007199254740993' },
    ],
    [whole, '/v1/things/7', '{"display_name":"x"}', { id: '7', displayName: 'x' }],
    [whole, '/v1/things/7', '\ufeff{"count":1}', { id: '7', count: 1 }],
    // Said twice, and alike.
    [whole, '/v1/things/7', '{"id":"7"}', { id: '7' }],
    [whole, '/v1/things/7', '{"labels":{"__proto__":"a"}}', { id: '7', labels: JSON.parse('{"__proto__":"a"}') }],
    [inside, '/v1/things/n/x', '', { part: { name: 'n' } }],
    [inside, '/v1/things/n/x', '{"size":2}', { part: { name: 'n', size: 2 } }],
    [inside, '/v1/things/n/x?count=3&tags=a', '{"size":2}', { part: { name: 'n', size: 2 }, count: 3, tags: ['a'] }],
    [post('/v1/x', 'tags'), '/v1/x', '["a","b"]', { tags: ['a', 'b'] }],
    [post('/v1/x', 'labels'), '/v1/x', '{"a":"b"}', { labels: { a: 'b' } }],
    [post('/v1/x', 'count'), '/v1/x', '5', { count: 5 }],
  ])('%o: %s %s', (rule, url, body, json) => {
    expect(read(rule, url, body)).toEqual(json)
  })

  test('a raw body is taken as it is, with its type', () => {
    const body = Buffer.from([0xff, 0x00])
    const data = Buffer.from(body).toString('base64')
    expect(read(post('/v1/x', 'blob'), '/v1/x', body)).toEqual({ blob: { contentType: 'text/odd', data } })
  })
})

describe('is refused with the field named', () => {
  const deep = `${'{"inner":'.repeat(100_000)}{}${'}'.repeat(100_000)}`
  test.each<[rule: Rule, url: string, body: string | Uint8Array, field: string, description: string]>([
    [list, '/v1/things?nope=1', '', 'nope', 'is no parameter of this path'],
    [list, '/v1/things?=1', '', '', 'is no parameter of this path'],
    [list, '/v1/things?__proto__=1', '', '__proto__', 'is no parameter of this path'],
    [list, '/v1/things?constructor.prototype=1', '', 'constructor.prototype', 'is no parameter of this path'],
    [list, '/v1/things?id.x=1', '', 'id.x', 'is no parameter of this path'],
    [list, '/v1/things?at.seconds=1', '', 'at.seconds', 'is no parameter of this path'],
    [list, '/v1/things?part..name=1', '', 'part..name', 'is no parameter of this path'],
    [list, '/v1/things?count=1&count=1', '', 'count', 'is given more than once'],
    [list, '/v1/things?is_on=true&isOn=true', '', 'isOn', 'is given more than once'],
    [list, '/v1/things?part.name=a&part.name=b', '', 'part.name', 'is given more than once'],
    [list, '/v1/things?count=', '', 'count', 'must be a whole number'],
    [list, '/v1/things?count=1.0', '', 'count', 'must be a whole number'],
    [list, '/v1/things?count=0x10', '', 'count', 'must be a whole number'],
    [list, '/v1/things?count=2147483648', '', 'count', 'out of range'],
    [list, '/v1/things?big=9223372036854775808', '', 'big', 'out of range'],
    [list, '/v1/things?unsigned=-1', '', 'unsigned', 'out of range'],
    [list, '/v1/things?isOn=1', '', 'isOn', 'must be true or false'],
    [list, '/v1/things?ratio=much', '', 'ratio', 'must be a number'],
    [list, '/v1/things?color=RED', '', 'color', 'must be one of COLOR_RED, COLOR_BLUE'],
    [list, '/v1/things?color=9', '', 'color', 'must be one of COLOR_RED, COLOR_BLUE'],
    [list, '/v1/things?at=yesterday', '', 'at', 'RFC 3339'],
    [list, '/v1/things?raw=%25%25', '', 'raw', 'base64'],
    [list, '/v1/things?part=x', '', 'part', 'cannot be given as a parameter'],
    [list, '/v1/things?parts.name=x', '', 'parts.name', 'is no parameter of this path'],
    [list, '/v1/things?parts=x', '', 'parts', 'cannot be given as a parameter'],
    [list, '/v1/things?labels=x', '', 'labels', 'cannot be given as a parameter'],
    [list, '/v1/things?labels.a=x', '', 'labels.a', 'is no parameter of this path'],
    [list, '/v1/things?left=a&right=b', '', 'side', 'left and right'],
    [list, '/v1/things?id=%ff', '', 'id', 'is not percent-encoded UTF-8'],
    [list, '/v1/things?%zz=1', '', '%zz', 'is not percent-encoded UTF-8'],
    [list, '/v1/things', '{}', 'body', 'must be empty'],
    [one, '/v1/things/%ff', '', 'id', 'is not percent-encoded UTF-8'],
    [one, '/v1/things/7?id=7', '', 'id', 'is given by the path'],
    [get('/v1/things/{count}'), '/v1/things/x', '', 'count', 'must be a whole number'],
    [whole, '/v1/things/7?count=1', '{}', 'count', 'belongs into the body'],
    [whole, '/v1/things/7', '{"id":"8"}', 'id', 'differs from the one in the path'],
    [whole, '/v1/things/7', '{"nope":1}', 'nope', 'is no field of Thing'],
    [whole, '/v1/things/7', '{"part":{"nope":1}}', 'part.nope', 'is no field of Part'],
    [whole, '/v1/things/7', '{"parts":[{},{"inner":{"size":"x"}}]}', 'parts[1].inner.size', 'expected number'],
    [whole, '/v1/things/7', '{"count":"1","count":"2"}', 'count', 'is given more than once'],
    [whole, '/v1/things/7', '{"is_on":true,"isOn":true}', 'is_on', 'set multiple times'],
    [whole, '/v1/things/7', '{"color":"RED"}', 'color', '"RED" is no Color'],
    [whole, '/v1/things/7', '{"at":"yesterday"}', 'at', 'RFC 3339'],
    [whole, '/v1/things/7', '{"left":"a","right":"b"}', 'side', 'left and right'],
    [whole, '/v1/things/7', '[]', 'body', 'must be a JSON object'],
    [whole, '/v1/things/7', 'null', 'body', 'must be a JSON object'],
    [whole, '/v1/things/7', '{"count":1', 'body', 'is no JSON'],
    [whole, '/v1/things/7', '{"count":1,}', 'body', 'is no JSON from character 11 on'],
    [whole, '/v1/things/7', Buffer.from([0x7b, 0xff, 0x7d]), 'body', 'is no UTF-8'],
    [whole, '/v1/things/7', `{"part":${deep}}`, `part${'.inner'.repeat(7)}`, 'recursion'],
    [whole, '/v1/things/7', '['.repeat(100_000), 'body', 'is no JSON'],
    [inside, '/v1/things/n/x', '{"name":"m"}', 'part.name', 'differs from the one in the path'],
    [inside, '/v1/things/n/x', '{"nope":1}', 'part.nope', 'is no field of Part'],
    [inside, '/v1/things/n/x', '{},"count":{}', 'body', 'is no JSON'],
    [inside, '/v1/things/n/x?part.size=1', '{}', 'part.size', 'belongs into the body'],
    [inside, '/v1/things/n/x?part.name=n', '{}', 'part.name', 'belongs into the body'],
  ])('%o: %s %.80s', (rule, url, body, field, description) => {
    expect(refusal(rule, url, body)).toMatchObject([{ field, description: expect.stringContaining(description) }])
  })

  test('and nothing of the body, which may be a prompt, is in the refusal of what is no JSON', () => {
    const said = JSON.stringify(refusal(whole, '/v1/things/7', '{"prompt": my secret}'))
    expect(said).toContain('is no JSON')
    expect(said).not.toContain('secret')
  })

  test.each([
    ['{"request":"my secret"}', 'request', 'must be a JSON object'],
    ['{"request":["my secret"]}', 'request', 'must be a JSON object'],
    ['{"request":{"my secret":1,"my secret":2}}', 'body', 'is given more than once'],
    ['{"service_id":"a","service_id":"b"}', 'service_id', 'is given more than once'],
  ])('nor of a field that holds one: %s', (body, field, description) => {
    const { validateRequest } = MarketplaceApi.method
    expect(refusalOf(validateRequest, '/api/v1/validate/consumption', body)).toEqual([{ field, description }])
  })

  test.each(['{"payload":{"prompt":"my secret"}}', '{"payload":"my secret?"}'])('nor of its bytes: %s', (body) => {
    const asked = refusalOf(ConsumptionService.method.routeRequest, '/v1/services/s/invoke', body)
    expect(asked).toEqual([{ field: 'payload', description: 'must be a text in base64' }])
  })
})
