import { expect, test } from 'vitest'
import { endpointRecord } from '../../test/support/registry-records.ts'
import { TollgateError } from '../errors.ts'
import { checkProtocol } from './protocol-rules.ts'
import type { ServiceRecord } from './records.ts'

const openai = endpointRecord()
const anthropic = endpointRecord({ protocol: 'anthropic', model: 'claude', auth: 'bearer' })
const grpc = endpointRecord({ protocol: 'grpc', url: 'https://gate.test/', model: 'upstream' })
const json = endpointRecord({ protocol: 'json' })

type Stated = Partial<Pick<ServiceRecord, 'endpoints' | 'refusesStreamOptions' | 'jsonPointers'>>

function check(stated: Stated): void {
  checkProtocol({ endpoints: [openai], refusesStreamOptions: false, jsonPointers: {}, ...stated })
}

test.each<[what: string, stated: Stated]>([
  ['endpoints of one protocol', { endpoints: [anthropic, anthropic] }],
  ['no stream_options for OpenAI-compatible backends', { refusesStreamOptions: true }],
  [
    'no stream_options for Azure',
    { endpoints: [endpointRecord({ protocol: 'azure_openai' })], refusesStreamOptions: true },
  ],
  ['the base of a gate, and its service', { endpoints: [grpc] }],
  ['pointers for plain JSON', { endpoints: [json], jsonPointers: { inputTokens: '/in' } }],
])('accepts %s', (_, stated) => {
  expect(() => check(stated)).not.toThrow()
})

test.each<[what: string, field: string, says: RegExp, stated: Stated]>([
  [
    'endpoints of several protocols',
    'service.endpoints[1].protocol',
    /PROTOCOL_OPENAI.*a service of/,
    { endpoints: [openai, anthropic] },
  ],
  [
    'a model for plain JSON',
    'service.endpoints[0].model',
    /the URL/,
    { endpoints: [endpointRecord({ protocol: 'json', model: 'm' })] },
  ],
  [
    'no stream_options where there are none',
    'service.refuses_stream_options',
    /PROTOCOL_ANTHROPIC/,
    { endpoints: [anthropic], refusesStreamOptions: true },
  ],
  ['pointers for another protocol', 'service.json_pointers', /PROTOCOL_JSON/, { jsonPointers: { inputTokens: '/in' } }],
  ['a gate without a service', 'service.endpoints[0].model', /id or name/, { endpoints: [{ ...grpc, model: '' }] }],
  [
    'a gate with a path',
    'service.endpoints[0].url',
    /no path/,
    { endpoints: [{ ...grpc, url: 'https://gate.test/v1' }] },
  ],
])('refuses %s', (_, field, says, stated) => {
  let thrown: unknown
  try {
    check(stated)
  } catch (error) {
    thrown = error
  }
  if (!(thrown instanceof TollgateError)) throw new Error('it was accepted')
  expect(thrown.reason).toBe('INVALID_ARGUMENT')
  expect(thrown.fields).toMatchObject([{ field, description: expect.stringMatching(says) }])
  expect(thrown.message).toContain(field)
})
