import { create, equals, type MessageInitShape } from '@bufbuild/protobuf'
import { FieldMaskSchema } from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Endpoint_Protocol, type Service, ServiceSchema } from '../gen/marketplace/v1/registry_pb.ts'
import { applyMask, type MaskRules } from './field-mask.ts'

type Init = Exclude<MessageInitShape<typeof ServiceSchema>, Service>

const rules: MaskRules = {
  immutable: { name: 'is never changed', version: 'is never changed' },
  outputOnly: ['id', 'create_time'],
}
const current: Init = {
  id: 'i',
  name: 'n',
  version: '1.0.0',
  description: 'old',
  endpoints: [{ url: 'https://a.example', protocol: Endpoint_Protocol.OPENAI }],
  responseCache: { ttl: { seconds: 60n }, sharing: 1 },
}

function updated(wanted: Init, paths?: string[]): Service {
  return applyMask(ServiceSchema, rules, {
    current: create(ServiceSchema, current),
    wanted: create(ServiceSchema, wanted),
    mask: paths && create(FieldMaskSchema, { paths }),
    field: 'service',
  })
}

/** What an update that names nothing but these makes of the resource. */
function expected(changes: Init): Service {
  return create(ServiceSchema, { ...current, ...changes })
}

describe('a mask', () => {
  test('changes what it names, and clears what it names and the request does not state', () => {
    expect(updated({ description: 'new' }, ['description', 'response_cache'])).toEqual(
      expected({ description: 'new', responseCache: undefined }),
    )
  })

  test('goes into a message, and leaves its other fields', () => {
    const wanted = { responseCache: { ttl: { seconds: 5n } } }
    expect(updated(wanted, ['response_cache.ttl'])).toEqual(
      expected({ responseCache: { ttl: { seconds: 5n }, sharing: 1 } }),
    )
    expect(updated({}, ['response_cache.ttl'])).toEqual(expected({ responseCache: { sharing: 1 } }))
    expect(updated({}, ['json_pointers.input_tokens'])).toEqual(expected({}))
  })

  test('replaces a list as a whole', () => {
    const endpoints = [{ url: 'https://b.example' }, { url: 'https://c.example' }]
    expect(updated({ endpoints }, ['endpoints'])).toEqual(expected({ endpoints }))
  })

  test('that is left out names what the request states', () => {
    expect(updated({ description: 'new' })).toEqual(expected({ description: 'new' }))
    expect(updated({ description: 'new' }, [])).toEqual(expected({ description: 'new' }))
  })

  test('of "*" replaces all but what never changes', () => {
    expect(updated({ description: 'new' }, ['*'])).toEqual(
      create(ServiceSchema, { id: 'i', name: 'n', version: '1.0.0', description: 'new' }),
    )
  })
})

describe('refused by name', () => {
  test.each([
    [{}, ['describtion'], 'update_mask: "describtion" is no field of Service'],
    [{}, ['description.x'], 'update_mask: "description.x" is no field of Service'],
    [{}, ['endpoints.url'], 'update_mask: "endpoints.url" is no field of Service'],
    [{}, [''], 'update_mask: "" is no field of Service'],
    [{}, ['*', 'description'], 'update_mask: "*" stands alone'],
    [{ name: 'm' }, ['name'], 'service.name: is never changed'],
    [{}, ['name'], 'service.name: is never changed'],
    [{ name: 'm' }, ['*'], 'service.name: is never changed'],
    [{ name: 'm' }, undefined, 'service.name: is never changed'],
    [{}, ['version', 'x'], 'service.version: is never changed; update_mask: "x" is no field of Service'],
  ])('%j under %j: %s', (wanted, paths, message) => {
    expect(() => updated(wanted, paths)).toThrow(expect.objectContaining({ reason: 'INVALID_ARGUMENT', message }))
  })
})

test.each([undefined, ['*'], ['id', 'name', 'create_time']])(
  'a resource may be sent back as it was read, under %j',
  (paths) => {
    expect(updated({ ...current, createTime: { seconds: 1n } }, paths)).toEqual(expected({}))
  },
)

test('whatever is named is as wanted, and nothing else has changed; neither message given is touched', () => {
  const paths = ['description', 'endpoints', 'drain_limit', 'refuses_stream_options', 'response_cache']
  const names = ['description', 'endpoints', 'drainLimit', 'refusesStreamOptions', 'responseCache'] as const
  const service = fc.record<Init>({
    description: fc.constantFrom('', 'a', 'b'),
    endpoints: fc.array(fc.record({ url: fc.constantFrom('x', 'y') }), { maxLength: 2 }),
    drainLimit: fc.option(fc.record({ seconds: fc.bigInt(1n, 3n) }), { nil: undefined }),
    refusesStreamOptions: fc.boolean(),
    responseCache: fc.option(fc.record({ sharing: fc.constantFrom(1, 2) }), { nil: undefined }),
  })
  fc.assert(
    fc.property(service, service, fc.subarray(paths, { minLength: 1 }), (before, wanted, mask) => {
      const given = [create(ServiceSchema, before), create(ServiceSchema, wanted)] as const
      const result = applyMask(ServiceSchema, rules, {
        current: given[0],
        wanted: given[1],
        mask: create(FieldMaskSchema, { paths: mask }),
        field: 'service',
      })
      const merged: Init = { ...before }
      for (const [index, name] of names.entries()) {
        if (mask.includes(paths[index] ?? '')) Object.assign(merged, { [name]: wanted[name] })
      }
      expect(equals(ServiceSchema, result, create(ServiceSchema, merged))).toBe(true)
      expect(equals(ServiceSchema, given[0], create(ServiceSchema, before))).toBe(true)
      expect(equals(ServiceSchema, given[1], create(ServiceSchema, wanted))).toBe(true)
    }),
  )
})
