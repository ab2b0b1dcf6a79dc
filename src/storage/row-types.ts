import pg from 'pg'

/** What makes a value of the text that Postgres sends, by the type's oid. */
export function parserOf(oid: number): (text: string) => unknown {
  return parsers.get(oid) ?? pg.types.getTypeParser(oid)
}

function safeInteger(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError('An int8 value is beyond the safe integers.')
  return value
}

const { INT8, DATE } = pg.types.builtins
const oidOf: Readonly<Record<'int8Array' | 'textArray', number>> = { int8Array: 1016, textArray: 1009 }
const textsOf: (text: string) => (string | null)[] = pg.types.getTypeParser(oidOf.textArray)

const parsers: ReadonlyMap<number, (text: string) => unknown> = new Map<number, (text: string) => unknown>([
  [INT8, safeInteger],
  [oidOf.int8Array, (text) => textsOf(text).map((value) => (value === null ? null : safeInteger(value)))],
  // A day is no instant.
  [DATE, (text) => text],
])
