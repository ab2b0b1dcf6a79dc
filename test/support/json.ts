/** What JSON can say; what foreign programs print is read through the functions below, which throw on a surprise. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json }

/** Parses one document. Throws with the text when it is none. */
export function parseJson(text: string): Json {
  try {
    const value: Json = JSON.parse(text)
    return value
  } catch (cause) {
    throw new Error(`not JSON: ${text.slice(0, 2000)}`, { cause })
  }
}

/** The member at the end of a path of names and indexes. Throws when it is not there. */
export function at(value: Json, ...path: readonly (string | number)[]): Json {
  let found: Json | undefined = value
  for (const step of path) {
    found = typeof found === 'object' && found !== null ? Object.entries(found).find(isAt(step))?.[1] : undefined
    if (found === undefined) throw new Error(`nothing at ${path.join('.')} of ${JSON.stringify(value).slice(0, 2000)}`)
  }
  return found
}

/** True when the object has the member. */
export function has(value: Json, name: string): boolean {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
}

/** A member that may be missing. */
export function member(value: Json, name: string): Json | undefined {
  return has(value, name) ? at(value, name) : undefined
}

/** All members of the name, however deep. */
export function everywhere(value: Json, name: string): readonly Json[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => [...(key === name ? [inner] : []), ...everywhere(inner, name)])
}

export function list(value: Json): readonly Json[] {
  if (Array.isArray(value)) return value
  throw new Error(`not a list: ${JSON.stringify(value)}`)
}

export function number(value: Json): number {
  if (typeof value === 'number') return value
  throw new Error(`not a number: ${JSON.stringify(value)}`)
}

export function string(value: Json): string {
  if (typeof value === 'string') return value
  throw new Error(`not a string: ${JSON.stringify(value)}`)
}

function isAt(step: string | number): (entry: readonly [string, Json]) => boolean {
  return ([name]) => name === String(step)
}
