import type { DescriptorProto, FieldDescriptorProto, FileDescriptorProto } from '@bufbuild/protobuf/wkt'
import { FieldDescriptorProto_Label as Label, FieldDescriptorProto_Type as Type } from '@bufbuild/protobuf/wkt'

/**
 * What `current` breaks of the contract `reference`, one sentence each: every message, field name, number, type and label
 * and every RPC of the reference must be there unchanged. Additions are free.
 */
export function brokenPromises(
  reference: readonly FileDescriptorProto[],
  current: readonly FileDescriptorProto[],
): string[] {
  const messages = messagesOf(current)
  const rpcs = rpcsOf(current)
  const broken: string[] = []
  for (const [name, promised] of messagesOf(reference)) {
    const message = messages.get(name)
    if (message === undefined) broken.push(`message ${name} is gone`)
    else broken.push(...promised.field.flatMap((field) => brokenField(name, field, message)))
  }
  for (const [name, promised] of rpcsOf(reference)) {
    const rpc = rpcs.get(name)
    if (rpc === undefined) broken.push(`rpc ${name} is gone`)
    else if (rpc !== promised) broken.push(`rpc ${name} is ${rpc}, promised is ${promised}`)
  }
  return broken
}

function brokenField(name: string, promised: FieldDescriptorProto, message: DescriptorProto): string[] {
  const field = message.field.find(({ number }) => number === promised.number)
  const promise = printed(promised)
  if (field === undefined) return [`${name} has no field "${promise}"`]
  return printed(field) === promise ? [] : [`${name} has "${printed(field)}", promised is "${promise}"`]
}

function printed(field: FieldDescriptorProto): string {
  const type = field.typeName === '' ? Type[field.type].toLowerCase() : field.typeName
  const presence = field.label === Label.REPEATED ? 'repeated ' : field.proto3Optional ? 'optional ' : ''
  const oneof = field.oneofIndex !== undefined && Object.hasOwn(field, 'oneofIndex') ? 'oneof ' : ''
  return `${oneof}${presence}${type} ${field.name} = ${field.number} [json_name = ${field.jsonName}]`
}

function messagesOf(files: readonly FileDescriptorProto[]): Map<string, DescriptorProto> {
  const all = new Map<string, DescriptorProto>()
  const add = (scope: string, message: DescriptorProto): void => {
    const name = `${scope}.${message.name}`
    all.set(name, message)
    for (const nested of message.nestedType) add(name, nested)
  }
  for (const file of files) for (const message of file.messageType) add(file.package, message)
  return all
}

function rpcsOf(files: readonly FileDescriptorProto[]): Map<string, string> {
  const all = new Map<string, string>()
  for (const file of files) {
    for (const service of file.service) {
      for (const { name, inputType, outputType, clientStreaming, serverStreaming } of service.method) {
        const input = `${clientStreaming ? 'stream ' : ''}${inputType}`
        const output = `${serverStreaming ? 'stream ' : ''}${outputType}`
        all.set(`${file.package}.${service.name}/${name}`, `(${input}) returns (${output})`)
      }
    }
  }
  return all
}
