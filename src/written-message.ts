/**
 * A message that can write its own binary form, beside being what a message can be made from. A wire that sends that form
 * asks it to, and makes no message object. What it writes is what its schema would, byte for byte.
 */
export interface WrittenMessage {
  /** Length of the binary form. */
  readonly binaryLength: number
  /** Writes the binary form into `target` from `at` on. */
  writeBinary(target: Buffer, at: number): void
}

/** Whether all messages can write themselves. */
export function areWritten(messages: readonly unknown[]): messages is readonly WrittenMessage[] {
  return messages.every((message) => typeof message === 'object' && message !== null && 'writeBinary' in message)
}
