import type { IdentifiedEntry } from './audit-record.ts'

/**
 * The entry as the log may hold it: texts are as Postgres stores them, or what is stored would not hash to what was hashed;
 * they are bounded; and API keys are blotted out wherever somebody put one.
 */
export function cleanEntry(entry: IdentifiedEntry): IdentifiedEntry {
  const { action, actor, resource, organizationId, reason, requestId, address, userAgent, before, after } = entry
  return {
    ...entry,
    action: short(action),
    actor: short(actor),
    resource: short(resource),
    organizationId: short(organizationId),
    reason: clean(reason.slice(0, reasonMaxLength)),
    requestId: short(requestId),
    address: short(address),
    userAgent: short(userAgent),
    before: before === null ? null : clean(before),
    after: after === null ? null : clean(after),
  }
}

/** An index of Postgres takes no more than 2,704 bytes. */
const shortMaxLength = 512
const reasonMaxLength = 4096

function short(text: string): string {
  return clean(text.slice(0, shortMaxLength))
}

/** The id of a key may be shown; what follows it may not. See identity/key-format.ts. */
const keys = /(tg_(?:live|test)_[0-9A-Za-z]{11}_)[0-9A-Za-z]+/g

function clean(text: string): string {
  return text.toWellFormed().replaceAll('\0', '').replaceAll(keys, '$1…')
}
