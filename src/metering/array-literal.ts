/**
 * Array literals of Postgres, made here: the driver escapes every element of every array, which was a third of the CPU
 * time of a batch. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
 */

/** Of values that need no quotes: numbers and ids. */
export function plainArray(values: readonly (number | string)[]): string {
  return `{${values.join(',')}}`
}

/** Of any texts. */
export function textArray(values: readonly string[]): string {
  if (values.length === 0) return '{}'
  return `{"${values.map((value) => (special.test(value) ? value.replace(/["\\]/g, '\\$&') : value)).join('","')}"}`
}

const special = /["\\]/
