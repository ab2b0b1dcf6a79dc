/** JSON Pointers (RFC 6901), by which a service says where its answers tell usage. */

/** A parsed pointer: the member names and indices on the way. */
export type JsonPointer = readonly string[]

/** The pointer that a text is; undefined when it is none. The empty text points at the whole document. */
export function parsePointer(text: string): JsonPointer | undefined {
  if (text === '') return []
  if (!text.startsWith('/') || /~(?![01])/.test(text)) return undefined
  return text
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** What the pointer points at; undefined when there is nothing. */
export function resolvePointer(pointer: JsonPointer, document: unknown): unknown {
  let value = document
  for (const part of pointer) {
    if (typeof value !== 'object' || value === null) return undefined
    if (Array.isArray(value) && !/^(0|[1-9]\d*)$/.test(part)) return undefined
    if (!Object.hasOwn(value, part)) return undefined
    value = Reflect.get(value, part)
  }
  return value
}
