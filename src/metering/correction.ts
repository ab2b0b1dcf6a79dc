/**
 * Corrections. A record of the ledger is never changed; what was wrong is put right by two more entries:
 *
 * - the **reversal** repeats the record with negated figures, and takes it out of every sum;
 * - the **rebooking** has the right figures, and takes its place.
 *
 * Both start when the record started, and so fall in its hour and its month. A rebooking may be corrected in turn; a
 * reversal may not.
 */
import { createHash } from 'node:crypto'
import type { UsageEvent } from './usage-event.ts'

/**
 * The reversal and the rebooking that make `right` of `original`, which is a record of the ledger and no reversal. Both
 * carry the labels of `right`, where the reason belongs; id, start and what it corrects are not taken from it. `newId` is
 * asked for the reversal's id first.
 */
export function correctionOf(original: UsageEvent, right: UsageEvent, newId: () => string): [UsageEvent, UsageEvent] {
  const { tokens } = original
  const reversal: UsageEvent = {
    ...original,
    id: newId(),
    requests: -1,
    corrects: original.id,
    // Taken from 0, because a negated 0 is another number than 0 to some.
    tokens: {
      input: 0 - tokens.input,
      cachedInput: 0 - tokens.cachedInput,
      cacheWriteInput: 0 - tokens.cacheWriteInput,
      output: 0 - tokens.output,
      reasoningOutput: 0 - tokens.reasoningOutput,
    },
    costNanos: 0 - original.costNanos,
    metadata: right.metadata,
    traceparent: '',
  }
  const rebooking: UsageEvent = {
    ...right,
    id: newId(),
    startMs: original.startMs,
    requests: 1,
    corrects: original.id,
    traceparent: '',
  }
  return [reversal, rebooking]
}

/**
 * The ids of the only correction that a record can have, for {@link correctionOf}. They follow from the record's id, so
 * that of two corrections that know nothing of each other the ledger takes one: both would take the record out of the
 * sums. UUIDv8, https://www.rfc-editor.org/rfc/rfc9562#section-5.8.
 */
export function correctionIds(recordId: string): () => string {
  let count = 0
  return () => {
    count += 1
    const hash = createHash('sha256').update(`correction ${count} of ${recordId}`).digest()
    hash.writeUInt8(0x80 | (hash.readUInt8(6) & 0x0f), 6)
    hash.writeUInt8(0x80 | (hash.readUInt8(8) & 0x3f), 8)
    return hash.toString('hex', 0, 16).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  }
}
