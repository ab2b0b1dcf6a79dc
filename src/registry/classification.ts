import { DataClassification as Message } from '../../gen/marketplace/v1/classification_pb.ts'

/** How much harm the disclosure of data would do; the order of {@link classifications}. */
export type DataClassification = (typeof classifications)[number]

/** From the least to the most; each level includes those before it. */
export const classifications = ['public', 'internal', 'confidential', 'restricted'] as const

/** The name of a level; undefined when none is stated. */
export function classificationOf(message: Message): DataClassification | undefined {
  return classifications.find((name) => values[name] === message)
}

/** A level in the contract; unspecified for none. */
export function classificationMessage(name: DataClassification | undefined): Message {
  return name === undefined ? Message.UNSPECIFIED : values[name]
}

/** Whether data of level `data` may go where level `allowed` may go. */
export function mayReceive(allowed: DataClassification, data: DataClassification): boolean {
  return classifications.indexOf(data) <= classifications.indexOf(allowed)
}

const values: Readonly<Record<DataClassification, Message>> = {
  public: Message.PUBLIC,
  internal: Message.INTERNAL,
  confidential: Message.CONFIDENTIAL,
  restricted: Message.RESTRICTED,
}
