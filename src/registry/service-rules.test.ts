import { create } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import { expect, test } from 'vitest'
import { EndpointSchema, JsonPointersSchema } from '../../gen/marketplace/v1/registry_pb.ts'

const validator = createValidator()

test.each([
  [{ weight: 1000, priority: 100 }, true],
  [{ weight: 1001 }, false],
  [{ weight: -1 }, false],
  [{ priority: 101 }, false],
  [{ priority: -1 }, false],
  [{ connectTimeout: { seconds: 61n, nanos: 0 } }, false],
  [{ headersTimeout: { seconds: 0n, nanos: 0 } }, false],
  [{ firstTokenTimeout: { seconds: 3601n, nanos: 0 } }, false],
  [{ idleTimeout: { seconds: -1n, nanos: 0 } }, false],
])('an endpoint with %o is accepted: %s', (fields, accepted) => {
  const endpoint = create(EndpointSchema, { url: 'http://127.0.0.1:4000/', ...fields })
  expect(validator.validate(EndpointSchema, endpoint).kind).toBe(accepted ? 'valid' : 'invalid')
})

test.each([
  ['http://127.0.0.1:4000/v1/chat/completions', true],
  ['https://models.example', true],
  ['https://models.example?tenant=a@b', true],
  ['https://[::1]:8443/v1', true],
  ['https://user:password@models.example/v1', false],
  ['https://token@models.example', false],
  ['ftp://models.example', false],
  ['https://', false],
])('an endpoint at %s is accepted: %s', (url, accepted) => {
  expect(validator.validate(EndpointSchema, create(EndpointSchema, { url })).kind).toBe(accepted ? 'valid' : 'invalid')
})

test.each([
  ['', true],
  ['/usage/input', true],
  ['/a~1b/~0/0/', true],
  ['usage', false],
  ['/a~b', false],
  ['/a~2', false],
  [`/${'a'.repeat(256)}`, false],
])('a JSON Pointer %j is accepted: %s', (pointer, accepted) => {
  for (const { localName } of JsonPointersSchema.fields) {
    const pointers = create(JsonPointersSchema, { [localName]: pointer })
    expect(validator.validate(JsonPointersSchema, pointers).kind).toBe(accepted ? 'valid' : 'invalid')
  }
})
