import { create } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import { CustomHttpPatternSchema } from '../../../gen/google/api/http_pb.ts'
import { bindingsOf } from './binding.ts'
import { type FixtureMethod, get, post, rpc, thingsService } from './fixture-service.ts'

function bindings(method: FixtureMethod) {
  return thingsService([method]).methods.flatMap(bindingsOf)
}

const lock = create(CustomHttpPatternSchema, { kind: 'LOCK', path: '/x' })

describe('is refused at start, naming the RPC', () => {
  test.each<[what: string, method: FixtureMethod, message: string]>([
    ['no path', rpc('A', {}), 'it has no path'],
    ['a custom verb', rpc('A', { pattern: { case: 'custom', value: lock } }), 'verb "LOCK"'],
    ['a wrong template', rpc('A', get('/v1/{id')), 'the path template'],
    ['a path field that is not there', rpc('A', get('/v1/{nope}')), 'no field "nope"'],
    ['a path field by its JSON name', rpc('A', get('/v1/{displayName}')), 'no field "displayName"'],
    ['a path field within a text', rpc('A', get('/v1/{id.x}')), 'no field "id.x"'],
    ['a repeated path field', rpc('A', get('/v1/{tags}')), 'tags is no single value'],
    ['a path field that is a message', rpc('A', get('/v1/{part}')), 'part is no single value'],
    ['a path field that is a map', rpc('A', get('/v1/{labels}')), 'labels is no single value'],
    ['GET with a body', rpc('A', get('/v1/x', { body: '*' })), 'GET takes no body'],
    ['a body that is not there', rpc('A', post('/v1/x', 'nope')), 'body: fixture.Thing has no field "nope"'],
    ['a body within a field', rpc('A', post('/v1/x', 'part.inner')), 'no field "part.inner"'],
    ['a body that is in the path', rpc('A', post('/v1/{id}', 'id')), 'id is in the path and is the body'],
    ['an answer that is not there', rpc('A', get('/v1/x', { responseBody: 'nope' })), 'response_body: fixture.Thing'],
    ['a stream of the caller', rpc('A', post('/v1/x'), { streams: 'request' }), 'its caller streams'],
    ['a stream with errors in it', rpc('A', get('/x'), { streams: 'answer', output: 'Failure' }), 'a field "error"'],
    ['a stream of raw bodies', rpc('A', get('/x'), { streams: 'answer', output: 'google.api.HttpBody' }), 'not served'],
    [
      'a stream of texts',
      rpc('A', get('/x', { responseBody: 'id' }), { streams: 'answer' }),
      'a stream of it is no stream of messages',
    ],
    [
      'bindings within additional bindings',
      rpc('A', get('/x', { additionalBindings: [get('/y', { additionalBindings: [get('/z')] })] })),
      'an additional binding has additional bindings',
    ],
  ])('%s', (_, method, message) => {
    expect(() => bindings(method)).toThrow(/^the HTTP binding of rpc fixture\.Things\.A is wrong: /)
    expect(() => bindings(method)).toThrow(message)
  })
})

test('every binding of an RPC is read', () => {
  const rule = get('/v1/{id}', { additionalBindings: [post('/v1/{part.name}/x', 'part'), post('/v1/y', '*')] })
  expect(bindings(rpc('A', rule))).toMatchObject([
    { verb: 'GET', template: { text: '/v1/{id}' }, body: undefined },
    { verb: 'POST', template: { text: '/v1/{part.name}/x' }, body: { name: 'part' } },
    { verb: 'POST', template: { text: '/v1/y' }, body: 'whole' },
  ])
  expect(bindings({ name: 'A' })).toEqual([])
})
