import type {
  DescriptorProto,
  EnumDescriptorProto,
  FieldDescriptorProto,
  FileDescriptorProto,
} from '@bufbuild/protobuf/wkt'
import { FieldDescriptorProto_Label as Label, FieldDescriptorProto_Type as Type } from '@bufbuild/protobuf/wkt'

/**
 * Prints a proto2 or proto3 file descriptor as `.proto` text: everything that decides wire format and generated names.
 * Options are left out. It exists for packages that ship a descriptor but no source.
 */
export function printProto(file: FileDescriptorProto): string {
  const syntax = file.syntax === '' ? 'proto2' : file.syntax
  const lines = [`syntax = "${syntax}";`, `package ${file.package};`]
  for (const dependency of file.dependency) lines.push(`import "${dependency}";`)
  for (const type of file.enumType) lines.push(...printEnum(type))
  for (const type of file.messageType) lines.push(...printMessage(type, syntax))
  for (const field of file.extension) lines.push(...printExtension(field, syntax))
  return `${lines.join('\n')}\n`
}

const scalars: Partial<Record<Type, string>> = {
  [Type.DOUBLE]: 'double',
  [Type.FLOAT]: 'float',
  [Type.INT64]: 'int64',
  [Type.UINT64]: 'uint64',
  [Type.INT32]: 'int32',
  [Type.FIXED64]: 'fixed64',
  [Type.FIXED32]: 'fixed32',
  [Type.BOOL]: 'bool',
  [Type.STRING]: 'string',
  [Type.BYTES]: 'bytes',
  [Type.UINT32]: 'uint32',
  [Type.SFIXED32]: 'sfixed32',
  [Type.SFIXED64]: 'sfixed64',
  [Type.SINT32]: 'sint32',
  [Type.SINT64]: 'sint64',
}

function printMessage(message: DescriptorProto, syntax: string): string[] {
  const lines = [`message ${message.name} {`]
  for (const nested of message.nestedType) lines.push(...printMessage(nested, syntax))
  for (const nested of message.enumType) lines.push(...printEnum(nested))
  for (const field of message.field) if (!inOneof(field)) lines.push(printField(field, syntax))
  message.oneofDecl.forEach((oneof, index) => {
    const members = message.field.filter((field) => inOneof(field) && field.oneofIndex === index)
    if (members.length === 0) return
    lines.push(`oneof ${oneof.name} {`, ...members.map((field) => printField(field, syntax, false)), '}')
  })
  for (const { start, end } of message.extensionRange) lines.push(`extensions ${start} to ${printEnd(end)};`)
  for (const { start, end } of message.reservedRange) lines.push(`reserved ${start} to ${printEnd(end)};`)
  for (const field of message.extension) lines.push(...printExtension(field, syntax))
  lines.push('}')
  return lines
}

function printEnum(type: EnumDescriptorProto): string[] {
  return [`enum ${type.name} {`, ...type.value.map(({ name, number }) => `${name} = ${number};`), '}']
}

function printExtension(field: FieldDescriptorProto, syntax: string): string[] {
  return [`extend ${field.extendee} {`, printField(field, syntax), '}']
}

function printField(field: FieldDescriptorProto, syntax: string, labelled = true): string {
  const type = scalars[field.type] ?? field.typeName
  const label =
    field.label === Label.REPEATED
      ? 'repeated '
      : field.label === Label.REQUIRED
        ? 'required '
        : syntax === 'proto2' || field.proto3Optional
          ? 'optional '
          : ''
  return `${labelled ? label : ''}${type} ${field.name} = ${field.number};`
}

function inOneof(field: FieldDescriptorProto): boolean {
  return field.oneofIndex !== undefined && Object.hasOwn(field, 'oneofIndex') && !field.proto3Optional
}

/** Ranges end exclusively in descriptors and inclusively in text; 536870912 is one past the largest field number. */
function printEnd(end: number): string {
  return end >= 536870912 ? 'max' : String(end - 1)
}
