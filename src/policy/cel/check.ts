/**
 * The type checker of policy expressions. The CEL library plans and evaluates whatever parses; this finds before that what
 * cannot work: names that are not there, operators that do not fit, conditions that are no conditions.
 *
 * What is of type `dyn` is left to the evaluation, as the language says:
 * https://github.com/google/cel-spec/blob/master/doc/langdef.md#gradual-type-checking
 */
import type { CelFunc, CelType, parse } from '@bufbuild/cel'
import { functions } from './functions.ts'
import { keptNetwork } from './networks.ts'
import { compilePattern, PatternError } from './patterns.ts'
import { bool, dyn, fits, int, join, listOf, mapOf, nothing, string, type Type, timestamp, typeName } from './types.ts'

export type Expr = ReturnType<typeof parse>['expr']

/** What is wrong with an expression, at the sub-expression with that id. */
export class CheckError extends Error {
  readonly id: bigint

  constructor(id: bigint, message: string) {
    super(message)
    this.id = id
  }
}

/** Variables by name; those of macros stand before those of the environment. */
type Scope = ReadonlyMap<string, Type>

/** The type of an expression's value. Throws {@link CheckError}. */
export function check(expr: Expr, scope: Scope): Type {
  const { id, exprKind } = expr
  switch (exprKind.case) {
    case 'constExpr':
      return constantType(exprKind.value.constantKind.case, id)
    case 'identExpr':
      return scope.get(exprKind.value.name) ?? undeclared(id, exprKind.value.name, scope)
    case 'selectExpr':
      return selectType(id, exprKind.value.field, exprKind.value.testOnly, check(given(exprKind.value.operand), scope))
    case 'callExpr':
      return callType(expr, exprKind.value, scope)
    case 'listExpr':
      return exprKind.value.elements.map((element) => check(element, scope)).reduce(listJoin, listOf(nothing))
    case 'structExpr':
      return structType(id, exprKind.value, scope)
    case 'comprehensionExpr':
      return comprehensionType(exprKind.value, scope)
    default:
      throw new CheckError(id, 'cannot be understood')
  }
}

type Kinds = Expr['exprKind']
type Kind<C extends Kinds['case']> =
  Extract<Kinds, { readonly case: C }> extends { readonly value: infer V } ? V : never
type CallExpr = Kind<'callExpr'>

function constantType(kind: string | undefined, id: bigint): Type {
  switch (kind) {
    case 'boolValue':
      return bool
    case 'int64Value':
      return int
    case 'uint64Value':
      return { kind: 'uint' }
    case 'doubleValue':
      return { kind: 'double' }
    case 'stringValue':
      return string
    case 'bytesValue':
      return { kind: 'bytes' }
    case 'nullValue':
      return { kind: 'null' }
    default:
      throw new CheckError(id, 'is a constant of an unknown kind')
  }
}

function undeclared(id: bigint, name: string, scope: Scope): never {
  const known = [...scope.keys()].filter((each) => !each.startsWith('@'))
  throw new CheckError(id, `undeclared reference to '${name}'; there are: ${known.join(', ')}`)
}

function selectType(id: bigint, field: string, isTest: boolean, operand: Type): Type {
  switch (operand.kind) {
    case 'dyn':
    case 'nothing':
      return isTest ? bool : dyn
    case 'map':
      return isTest ? bool : operand.value
    case 'struct': {
      const type = Object.hasOwn(operand.fields, field) ? operand.fields[field] : undefined
      if (type !== undefined) return isTest ? bool : type
      const known = Object.keys(operand.fields).join(', ')
      throw new CheckError(id, `undefined field '${field}' of ${operand.name}; it has: ${known}`)
    }
    default:
      throw new CheckError(id, `type '${typeName(operand)}' has no field '${field}'`)
  }
}

/** Lists and maps of values of several types hold `dyn`. */
function listJoin(list: Type, element: Type): Type {
  return list.kind === 'list' ? listOf(join(list.element, element) ?? dyn) : list
}

function structType(id: bigint, { messageName, entries }: Kind<'structExpr'>, scope: Scope): Type {
  if (messageName !== '') throw new CheckError(id, `there is no type '${messageName}'`)
  let key: Type = nothing
  let value: Type = nothing
  for (const entry of entries) {
    if (entry.keyKind.case !== 'mapKey') throw new CheckError(entry.id, 'is no entry of a map')
    const keyType = check(entry.keyKind.value, scope)
    if (!['string', 'int', 'uint', 'bool', 'dyn'].includes(keyType.kind)) {
      throw new CheckError(entry.keyKind.value.id, `type '${typeName(keyType)}' cannot be a key of a map`)
    }
    key = join(key, keyType) ?? dyn
    value = join(value, check(given(entry.value), scope)) ?? dyn
  }
  return mapOf(key, value)
}

/** A macro: its range is gone through once, with a variable for the element and one for the result so far. */
function comprehensionType(fold: Kind<'comprehensionExpr'>, scope: Scope): Type {
  const range = given(fold.iterRange)
  const element = elementType(range.id, check(range, scope))
  const begun = check(given(fold.accuInit), scope)
  const first = new Map([...scope, [fold.iterVar, element], [fold.accuVar, begun]])
  const loopCondition = given(fold.loopCondition)
  expect(bool, check(loopCondition, first), loopCondition.id)
  const step = check(given(fold.loopStep), first)
  const accu = join(begun, step) ?? dyn
  return check(given(fold.result), new Map([...scope, [fold.accuVar, accu]]))
}

function elementType(id: bigint, range: Type): Type {
  switch (range.kind) {
    case 'list':
      return range.element.kind === 'nothing' ? dyn : range.element
    case 'map':
      return range.key.kind === 'nothing' ? dyn : range.key
    case 'dyn':
      return dyn
    default:
      throw new CheckError(id, `expression of type '${typeName(range)}' cannot be the range of a macro`)
  }
}

function callType({ id }: Expr, call: CallExpr, scope: Scope): Type {
  const target = call.target === undefined ? undefined : check(call.target, scope)
  const args = call.args.map((arg) => check(arg, scope))
  const [a = dyn, b = dyn, c = dyn] = args
  switch (call.function) {
    case '_&&_':
    case '_||_':
      for (const [index, arg] of args.entries()) expect(bool, arg, call.args[index]?.id ?? id)
      return bool
    case '@not_strictly_false':
      return bool
    case '_?_:_':
      expect(bool, a, call.args[0]?.id ?? id)
      return join(b, c) ?? mismatch(id, call.function, undefined, args)
    case '_[_]':
      return indexType(id, a, b)
    case '_==_':
    case '_!=_':
      return fits(a, b) ? bool : mismatch(id, call.function, undefined, args)
    case '@in':
      return containsType(b, a) ? bool : mismatch(id, call.function, undefined, args)
    case '_+_':
      if (a.kind === 'list' && b.kind === 'list') return join(a, b) ?? listOf(dyn)
      break
  }
  const result = overloadResult(call.function, target, args)
  if (result === undefined) {
    const known = [...functions].some(({ name }) => name === call.function)
    if (!known) throw new CheckError(id, `undeclared reference to function '${call.function}'`)
    return mismatch(id, call.function, target, args)
  }
  checkLiterals(call)
  return result
}

function indexType(id: bigint, collection: Type, index: Type): Type {
  if (collection.kind === 'dyn') return dyn
  if (collection.kind === 'list' && fits(index, int)) return collection.element
  if (collection.kind === 'map' && fits(index, collection.key)) return collection.value
  return mismatch(id, '_[_]', undefined, [collection, index])
}

function containsType(collection: Type, element: Type): boolean {
  if (collection.kind === 'list') return fits(element, collection.element)
  if (collection.kind === 'map') return fits(element, collection.key)
  return collection.kind === 'dyn'
}

/** What the functions of that name give that fit; `dyn` when they differ, undefined when there are none. */
function overloadResult(name: string, target: Type | undefined, args: readonly Type[]): Type | undefined {
  let result: Type | undefined
  for (const func of functions.find(name) ?? []) {
    if (!accepts(func, target, args)) continue
    const type = fromCel(func.result)
    result = result === undefined ? type : (join(result, type) ?? dyn)
  }
  return result
}

function accepts(func: CelFunc, target: Type | undefined, args: readonly Type[]): boolean {
  if (func.arguments.length !== args.length || (func.target === undefined) !== (target === undefined)) return false
  if (func.target !== undefined && target !== undefined && !fits(target, fromCel(func.target))) return false
  return func.arguments.every((wanted, index) => fits(args[index] ?? dyn, fromCel(wanted)))
}

function fromCel(type: CelType): Type {
  switch (type.kind) {
    case 'list':
      return listOf(fromCel(type.element))
    case 'map':
      return mapOf(fromCel(type.key), fromCel(type.value))
    case 'object':
      if (type.name === 'google.protobuf.Timestamp') return timestamp
      return type.name === 'google.protobuf.Duration' ? { kind: 'duration' } : dyn
    case 'scalar':
      return { kind: type.scalar === 'null_type' ? 'null' : type.scalar }
  }
}

/** A pattern or a network that is written out is looked at now, and not only when a call comes. */
function checkLiterals(call: CallExpr): void {
  const [arg] = call.args
  const constant = arg?.exprKind.case === 'constExpr' ? arg.exprKind.value.constantKind : undefined
  if (arg === undefined || constant?.case !== 'stringValue') return
  if (call.function === 'inCidr' && keptNetwork(constant.value) === undefined) {
    throw new CheckError(arg.id, `"${constant.value}" is no network in CIDR notation, such as "10.0.0.0/8"`)
  }
  if (call.function !== 'matches') return
  try {
    compilePattern(constant.value)
  } catch (error) {
    if (error instanceof PatternError) throw new CheckError(arg.id, `the pattern ${error.message}`)
    throw error
  }
}

function expect(wanted: Type, type: Type, id: bigint): void {
  if (!fits(type, wanted)) throw new CheckError(id, `expected type '${typeName(wanted)}' but found '${typeName(type)}'`)
}

function mismatch(id: bigint, name: string, target: Type | undefined, args: readonly Type[]): never {
  const applied = `(${args.map(typeName).join(', ')})`
  const to = target === undefined ? applied : `${typeName(target)}.${applied}`
  throw new CheckError(id, `found no matching overload for '${name}' applied to '${to}'`)
}

function given(expr: Expr | undefined): Expr {
  if (expr === undefined) throw new CheckError(0n, 'cannot be understood')
  return expr
}
