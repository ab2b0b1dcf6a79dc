import {
  create,
  type DescMessage,
  getOption,
  hasOption,
  type JsonValue,
  type MessageInitShape,
  toJson,
} from '@bufbuild/protobuf'
import { isReflectMessage, type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect'
import { sensitive } from '../../gen/marketplace/v1/options_pb.ts'

/**
 * A resource as Protobuf JSON, for its trail. Throws when its message, at any depth, has a value in a field that the contract
 * marks as sensitive: a trail that hid it could not say what changed, and one that held it would give it away.
 */
export function resourceJson<D extends DescMessage>(schema: D, init: MessageInitShape<D>): JsonValue {
  const message = create(schema, init)
  refuseSensitive(reflect(schema, message))
  return toJson(schema, message)
}

function refuseSensitive(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue
    if (hasOption(field, sensitive) && getOption(field, sensitive)) throw new Error(`${field} must not leave a trail`)
    const value: unknown = message.get(field)
    if (isReflectMessage(value)) refuseSensitive(value)
    else if (field.fieldKind === 'list') for (const item of message.get(field)) refuseWithin(item)
    else if (field.fieldKind === 'map') for (const [, item] of message.get(field)) refuseWithin(item)
  }
}

function refuseWithin(item: unknown): void {
  if (isReflectMessage(item)) refuseSensitive(item)
}
