import { fromJson } from '@bufbuild/protobuf'
import { describe, expect, test } from 'vitest'
import { CreateConsumerRequestSchema } from '../../gen/marketplace/v1/consumers_pb.ts'
import { RouteRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { RegisterServiceRequestSchema } from '../../gen/marketplace/v1/registry_pb.ts'
import { flagsOf } from './request-fields.ts'
import { givenFlags, requestOf } from './request-reading.ts'

const resource = 'consumer'
const flags = flagsOf(CreateConsumerRequestSchema, resource)

function read(options: Record<string, unknown>, words: readonly string[] = []) {
  return givenFlags(flags, options, ['consumer.name'], words)
}

describe('flags', () => {
  test('are the fields of the resource, those within it by their path, and no field that the gate fills in', () => {
    expect(flags.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['name', 'tier', 'granted-services', 'overrides.request-burst']),
    )
    expect(flags.map(({ name }) => name)).not.toContain('create-time')
  })

  test('become the message that they say', () => {
    const given = read({ tier: 'premium', grantedServices: ['a', '*'], 'overrides.requestBurst': '7' }, ['x'])
    const json = Object.fromEntries(given.map(([{ protoPath }, value]) => [protoPath, value]))
    expect(json).toEqual({
      'consumer.name': 'x',
      'consumer.tier': 'TIER_PREMIUM',
      'consumer.granted_services': ['a', '*'],
      'consumer.overrides.request_burst': '7',
    })
  })

  test.each([
    [{ tier: 'gold' }, '--tier expects one of basic, premium, enterprise'],
    [{ 'overrides.requestBurst': 'many' }, '--overrides.request-burst expects a number'],
  ])('refuse %j', (options, text) => {
    expect(() => read(options)).toThrow(text)
  })

  test('of maps are pairs, and bytes have none', () => {
    const route = flagsOf(RouteRequestRequestSchema, undefined)
    expect(route.map(({ name }) => name)).not.toContain('payload')
    const given = givenFlags(route, { metadata: ['team=a=b', 'empty='] }, [], [])
    expect(given.map(([, value]) => value)).toEqual([{ team: 'a=b', empty: '' }])
    expect(() => givenFlags(route, { metadata: ['='] }, [], [])).toThrow('--metadata expects key=value')
  })
})

test('flags go over what a file says', () => {
  const register = flagsOf(RegisterServiceRequestSchema, 'service')
  const file = { service: { name: 'a', version: '1.0.0', endpoints: [{ url: 'https://x.example/v1' }] } }
  const given = givenFlags(register, { version: '2.0.0', drainLimit: '3s' }, [], [])
  const request = requestOf(RegisterServiceRequestSchema, 'service', file, given)
  expect(fromJson(RegisterServiceRequestSchema, request).service).toMatchObject({
    name: 'a',
    version: '2.0.0',
    endpoints: [{ url: 'https://x.example/v1' }],
    drainLimit: { seconds: 3n },
  })
  expect(file.service.version).toBe('1.0.0')
})
