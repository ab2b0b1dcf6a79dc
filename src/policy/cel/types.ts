/** Types of the checker of policy expressions. Values that `dyn` stands for are looked at only when an expression runs. */
export type Type =
  | { readonly kind: ScalarKind }
  | { readonly kind: 'list'; readonly element: Type }
  | { readonly kind: 'map'; readonly key: Type; readonly value: Type }
  /** A documented object: only these fields can be selected. */
  | { readonly kind: 'struct'; readonly name: string; readonly fields: Readonly<Record<string, Type>> }

export type ScalarKind =
  | 'bool'
  | 'int'
  | 'uint'
  | 'double'
  | 'string'
  | 'bytes'
  | 'null'
  | 'timestamp'
  | 'duration'
  | 'type'
  | 'dyn'
  /** Element of an empty list or map: any type fits, and gives way to it. */
  | 'nothing'

export const bool: Type = { kind: 'bool' }
export const int: Type = { kind: 'int' }
export const string: Type = { kind: 'string' }
export const timestamp: Type = { kind: 'timestamp' }
export const dyn: Type = { kind: 'dyn' }
export const nothing: Type = { kind: 'nothing' }

export function listOf(element: Type): Type {
  return { kind: 'list', element }
}

export function mapOf(key: Type, value: Type): Type {
  return { kind: 'map', key, value }
}

export function structOf(name: string, fields: Readonly<Record<string, Type>>): Type {
  return { kind: 'struct', name, fields }
}

/** As an error names it, for example "list(string)". */
export function typeName(type: Type): string {
  switch (type.kind) {
    case 'list':
      return `list(${typeName(type.element)})`
    case 'map':
      return `map(${typeName(type.key)}, ${typeName(type.value)})`
    case 'struct':
      return type.name
    case 'null':
      return 'null_type'
    case 'nothing':
      return 'dyn'
    default:
      return type.kind
  }
}

/** The type of a value that is of one of the two; undefined when nothing but `dyn` is both. */
export function join(a: Type, b: Type): Type | undefined {
  if (a.kind === 'nothing') return b
  if (b.kind === 'nothing') return a
  if (a.kind === 'dyn' || b.kind === 'dyn') return dyn
  if (a.kind === 'list' && b.kind === 'list') {
    const element = join(a.element, b.element)
    return element && listOf(element)
  }
  if (a.kind === 'map' && b.kind === 'map') {
    const key = join(a.key, b.key)
    const value = join(a.value, b.value)
    return key && value && mapOf(key, value)
  }
  if (a.kind === 'struct' && b.kind === 'struct') return a.name === b.name ? a : undefined
  return a.kind === b.kind ? a : undefined
}

/** Whether a value of the type may stand where `wanted` is asked for. */
export function fits(type: Type, wanted: Type): boolean {
  return join(type, wanted) !== undefined
}
