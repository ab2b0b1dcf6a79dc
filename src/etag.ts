import { TollgateError } from './errors.ts'

/**
 * Refuses a change of a resource that is not as its caller saw it (https://google.aip.dev/154): throws ETAG_MISMATCH with the
 * current etag. An empty etag changes the resource whatever it is. To be called with the resource's row locked.
 *
 * @param field path of the request field that holds `given`.
 */
export function checkEtag(given: string, current: string, field = 'etag'): void {
  if (given === '' || given === current) return
  const description = `the resource has changed since: its etag is ${current}`
  throw new TollgateError('ETAG_MISMATCH', `${field}: ${description}. Read it, and decide anew.`, {
    metadata: { etag: current, field },
    fields: [{ field, description, rule: 'etag' }],
  })
}

/** The etag of a resource by its revision, a number that moves with every change of it. */
export function etagOf(revision: number): string {
  return `r${revision}`
}
