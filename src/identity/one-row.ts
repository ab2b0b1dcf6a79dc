/** The row of a statement that returns exactly one. */
export function one<T>(rows: readonly T[]): T {
  const [row] = rows
  if (row === undefined) throw new Error('a statement returned no row')
  return row
}
