import { create, createFileRegistry, type DescService, setExtension } from '@bufbuild/protobuf'
import {
  DescriptorProtoSchema,
  EnumDescriptorProtoSchema,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  file_google_protobuf_duration,
  file_google_protobuf_field_mask,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
  FieldDescriptorProto_Label as Label,
  type MethodDescriptorProto,
  MethodDescriptorProtoSchema,
  MethodOptionsSchema,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt'
import { http } from '../../../gen/google/api/annotations_pb.ts'
import type { HttpRule } from '../../../gen/google/api/http_pb.ts'
import { HttpRuleSchema } from '../../../gen/google/api/http_pb.ts'
import { file_google_api_httpbody } from '../../../gen/google/api/httpbody_pb.ts'

/** What of google.api.HttpRule the tests use. */
interface Rule {
  readonly pattern?: HttpRule['pattern']
  readonly body?: string
  readonly responseBody?: string
  readonly additionalBindings?: Rule[]
}

/** An RPC to be made. */
export interface FixtureMethod {
  readonly name: string
  readonly rule?: Rule
  readonly input?: string
  readonly output?: string
  readonly streams?: 'answer' | 'request'
}

/**
 * A service that no proto declares, for tests: `fixture.Things`, with RPCs as asked for, whose requests and answers are
 * `Thing` unless they say otherwise. `Thing` has a field of every kind.
 */
export function thingsService(methods: readonly FixtureMethod[]): DescService {
  const file = create(FileDescriptorProtoSchema, {
    name: 'fixture/things.proto',
    package: 'fixture',
    syntax: 'proto3',
    dependency: dependencies.map(({ proto }) => proto.name),
    messageType: [thing, part, failure],
    enumType: [color],
    service: [{ name: 'Things', method: methods.map(methodProto) }],
  })
  const registry = createFileRegistry(file, (name) => dependencies.find(({ proto }) => proto.name === name))
  const service = registry.getService('fixture.Things')
  if (service === undefined) throw new Error('the fixture has no service')
  return service
}

export function rpc(name: string, rule: Rule, more: Omit<FixtureMethod, 'name' | 'rule'> = {}): FixtureMethod {
  return { name, rule, ...more }
}

export function get(path: string, more: Omit<Rule, 'pattern'> = {}): Rule {
  return { pattern: { case: 'get', value: path }, ...more }
}

export function post(path: string, body = '*', more: Omit<Rule, 'pattern'> = {}): Rule {
  return { pattern: { case: 'post', value: path }, body, ...more }
}

function methodProto({ name, rule, input = 'Thing', output = 'Thing', streams }: FixtureMethod): MethodDescriptorProto {
  const options = create(MethodOptionsSchema)
  const declared: HttpRule | undefined = rule && create(HttpRuleSchema, rule)
  if (declared !== undefined) setExtension(options, http, declared)
  return create(MethodDescriptorProtoSchema, {
    name,
    inputType: typeName(input),
    outputType: typeName(output),
    options,
    serverStreaming: streams === 'answer',
    clientStreaming: streams === 'request',
  })
}

function typeName(name: string): string {
  return name.includes('.') ? `.${name}` : `.fixture.${name}`
}

const dependencies = [
  file_google_protobuf_timestamp,
  file_google_protobuf_duration,
  file_google_protobuf_field_mask,
  file_google_protobuf_wrappers,
  file_google_api_httpbody,
]

function field(number: number, name: string, type: Type | string, label = Label.OPTIONAL, oneofIndex?: number) {
  const isEnum = type === 'Color'
  return create(FieldDescriptorProtoSchema, {
    number,
    name,
    label,
    jsonName: name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
    ...(typeof type === 'string' ? { type: isEnum ? Type.ENUM : Type.MESSAGE, typeName: typeName(type) } : { type }),
    ...(oneofIndex !== undefined && { oneofIndex }),
  })
}

const color = create(EnumDescriptorProtoSchema, {
  name: 'Color',
  value: [
    { name: 'COLOR_UNSPECIFIED', number: 0 },
    { name: 'COLOR_RED', number: 1 },
    { name: 'COLOR_BLUE', number: 2 },
  ],
})

const part = create(DescriptorProtoSchema, {
  name: 'Part',
  field: [field(1, 'name', Type.STRING), field(2, 'size', Type.INT32), field(3, 'inner', 'Part')],
})

/** Has a field that no message of a stream may have. */
const failure = create(DescriptorProtoSchema, { name: 'Failure', field: [field(1, 'error', Type.STRING)] })

const thing = create(DescriptorProtoSchema, {
  name: 'Thing',
  field: [
    field(1, 'id', Type.STRING),
    field(2, 'display_name', Type.STRING),
    field(3, 'count', Type.INT32),
    field(4, 'big', Type.INT64),
    field(5, 'is_on', Type.BOOL),
    field(6, 'ratio', Type.DOUBLE),
    field(7, 'color', 'Color'),
    field(8, 'tags', Type.STRING, Label.REPEATED),
    field(9, 'colors', 'Color', Label.REPEATED),
    field(10, 'at', 'google.protobuf.Timestamp'),
    field(11, 'lasting', 'google.protobuf.Duration'),
    field(12, 'mask', 'google.protobuf.FieldMask'),
    field(13, 'part', 'Part'),
    field(14, 'labels', 'fixture.Thing.LabelsEntry', Label.REPEATED),
    field(15, 'raw', Type.BYTES),
    field(16, 'left', Type.STRING, Label.OPTIONAL, 0),
    field(17, 'right', Type.STRING, Label.OPTIONAL, 0),
    field(18, 'wrapped', 'google.protobuf.Int64Value'),
    field(19, 'parts', 'Part', Label.REPEATED),
    field(20, 'blob', 'google.api.HttpBody'),
    field(21, 'unsigned', Type.UINT64),
  ],
  oneofDecl: [{ name: 'side' }],
  nestedType: [
    {
      name: 'LabelsEntry',
      field: [field(1, 'key', Type.STRING), field(2, 'value', Type.STRING)],
      options: { mapEntry: true },
    },
  ],
})
