import { create } from '@bufbuild/protobuf'
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt'
import { expect, test } from 'vitest'
import { brokenPromises } from './contract.ts'

const label = Label.OPTIONAL

function file(type: Type, name: string, number: number, jsonName = name): FileDescriptorProto {
  return create(FileDescriptorProtoSchema, {
    package: 'a.v1',
    messageType: [{ name: 'Usage', field: [{ name, number, type, label, jsonName }] }],
    service: [{ name: 'Gate', method: [{ name: 'Route', inputType: '.a.v1.Usage', outputType: '.a.v1.Usage' }] }],
  })
}

const reference = [file(Type.INT64, 'input_tokens', 1)]

test('the contract itself keeps every promise, and so does one with additions', () => {
  const grown = file(Type.INT64, 'input_tokens', 1)
  grown.messageType.push(...file(Type.BOOL, 'more', 2).messageType.map((message) => ({ ...message, name: 'More' })))
  expect(brokenPromises(reference, reference)).toEqual([])
  expect(brokenPromises(reference, [grown])).toEqual([])
})

test.each([
  ['another type', file(Type.INT32, 'input_tokens', 1), 'promised is "int64 input_tokens = 1'],
  ['another name', file(Type.INT64, 'tokens_in', 1), 'has "int64 tokens_in = 1'],
  ['another number', file(Type.INT64, 'input_tokens', 2), 'has no field "int64 input_tokens = 1'],
  ['another JSON name', file(Type.INT64, 'input_tokens', 1, 'inputs'), 'json_name = inputs'],
])('%s breaks it', (_what, changed, expected) => {
  expect(brokenPromises(reference, [changed]).join()).toContain(expected)
})

test('a missing message, a missing RPC and a stream in place of a message break it', () => {
  expect(brokenPromises(reference, [])).toEqual(['message a.v1.Usage is gone', 'rpc a.v1.Gate/Route is gone'])
  const streaming = file(Type.INT64, 'input_tokens', 1)
  for (const method of streaming.service[0]?.method ?? []) method.serverStreaming = true
  expect(brokenPromises(reference, [streaming]).join()).toContain('returns (stream .a.v1.Usage)')
})
