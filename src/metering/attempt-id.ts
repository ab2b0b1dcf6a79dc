/**
 * Ids of a call's attempts. All follow from the id that the call was admitted with, so that a call is known by any of them,
 * also when nobody lived to record its last attempt: they differ in the last digit alone.
 *
 * The id of the admission belongs to the record that has the call's usage and cost, whichever attempt that was: what is
 * settled must have the id of what would be recorded as abandoned. So the first attempt, which was sent with that id, and
 * the last one trade theirs in the ledger.
 */

/** Id under which attempt `number`, from 1 to 4, is sent; the first one has the admission's. */
export function attemptIdOf(admissionId: string, number: number): string {
  return number <= 1
    ? admissionId
    : admissionId.slice(0, -1) + changedDigit(admissionId, (digit) => digit ^ (number - 1))
}

/** Id of the record of attempt `number` of a call that had `count` attempts. */
export function recordIdOf(admissionId: string, number: number, count: number): string {
  if (number === count) return admissionId
  return attemptIdOf(admissionId, number === 1 ? count : number)
}

/** The same for all attempts of a call, and for no two calls. */
export function callOfAttempt(attemptId: string): string {
  return attemptId.slice(0, -1) + changedDigit(attemptId, (digit) => digit & ~3)
}

function changedDigit(id: string, change: (digit: number) => number): string {
  return change(Number.parseInt(id.slice(-1), 16)).toString(16)
}
