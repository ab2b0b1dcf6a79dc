import {
  type CelFunc,
  CelScalar,
  type CelValue,
  celEnv,
  celError,
  celFunc,
  celList,
  celMethod,
  isCelList,
  isCelMap,
  listType,
} from '@bufbuild/cel'
import { strings } from '@bufbuild/cel/ext'
import { levelOf } from '../levels.ts'
import type { Meter } from './meter.ts'
import { keptNetwork } from './networks.ts'
import { keptPattern } from './patterns.ts'

const { BOOL, DYN, INT, STRING } = CelScalar
const LIST = listType(DYN)

/** Of the strings extension, what takes time and space in proportion to its arguments. */
const stringFunctions = new Set(['charAt', 'indexOf', 'lowerAscii', 'upperAscii', 'substring', 'trim', 'split'])

/** What policy expressions may call, beside the operators of the language. */
const ownFunctions: readonly CelFunc[] = [
  // The library's own makes a list of lists, and going through one of a thousand such lists nests a thousand generators.
  celFunc('_+_', [LIST, LIST], LIST, (left, right) => celList([...left, ...right])),
  celMethod('matches', STRING, [STRING], BOOL, function (pattern) {
    return keptPattern(pattern).regex.test(this)
  }),
  celMethod('inCidr', STRING, [STRING], BOOL, function (cidr) {
    const network = keptNetwork(cidr)
    if (network === undefined) throw celError(`"${cidr}" is no network in CIDR notation`)
    return network(this)
  }),
  celFunc('level', [STRING], INT, (name) => {
    const level = levelOf(name)
    if (level === undefined) throw celError(`"${name}" is no data classification`)
    return BigInt(level)
  }),
]

/** All functions, without a meter: what the checker knows. */
export const functions = celEnv({
  funcs: [...strings.filter(({ name }) => stringFunctions.has(name)), ...ownFunctions],
}).funcs

/** Names of the functions that the instrumentation of a compiled expression calls; no expression can name them. */
export const tickName = '@tick'
export const rangeName = '@range'

/**
 * The same functions, charging to a meter before they run. Of each name the first overload that is asked answers for all of
 * them, so that a call is charged once; what a meter throws goes through the evaluator, as nothing here catches it.
 */
export function meteredFunctions(meter: Meter): CelFunc[] {
  const metered: CelFunc[] = []
  for (const func of functions) {
    const group = functions.find(func.name)
    if (group === undefined) continue
    const call: CelFunc['call'] = (id, target, args) => {
      meter.charge(costOf(func.name, target, args))
      return group.call(id, target, args) ?? celError(`found no matching overload for '${func.name}'`, id)
    }
    metered.push(Object.assign(copyOf(func), { call }))
  }
  const tick: CelFunc['call'] = (_id, _target, [units]) => {
    meter.charge(Number(units))
    return true
  }
  const range: CelFunc['call'] = (_id, _target, [value]) => {
    if (isCelList(value) || isCelMap(value)) meter.charge(1 + value.size)
    return value
  }
  return [
    ...metered,
    Object.assign(
      celFunc(tickName, [INT], BOOL, () => true),
      { call: tick },
    ),
    Object.assign(
      celFunc(rangeName, [DYN], DYN, (value) => value),
      { call: range },
    ),
  ]
}

/** With the same signature, which decides that it takes the place of the other one. */
function copyOf({ name, target, arguments: args, result }: CelFunc): CelFunc {
  const never = (): never => {
    throw new Error(`${name} is called through its meter only`)
  }
  return target === undefined
    ? celFunc(name, [...args], result, never)
    : celMethod(name, target, [...args], result, never)
}

/** Conversions that read their text digit by digit into a growing number. */
const conversions = new Set(['int', 'uint', 'double', 'bool', 'timestamp', 'duration'])
/** A zone of the tz database is looked up anew each time. */
const zoneCost = 500
/** Characters that the slowest functions go through in the time of a unit. */
const charactersPerUnit = 8

/** Units of a call; at least the time that it can take, for all arguments. */
function costOf(name: string, target: CelValue | undefined, args: readonly CelValue[]): number {
  const [first] = args
  if (name === 'matches' && typeof target === 'string' && typeof first === 'string') {
    return 10 + (target.length * keptPattern(first).size) / 8
  }
  let cost = 1 + (target === undefined ? 0 : weightOf(target))
  for (const arg of args) cost += weightOf(arg)
  if (conversions.has(name) && typeof first === 'string') return cost + first.length ** 2 / 16
  if (name.startsWith('get') && first !== undefined) return cost + zoneCost
  return cost
}

/** Units for going through a value once. */
function weightOf(value: CelValue): number {
  if (typeof value === 'string') return value.length / charactersPerUnit
  if (value instanceof Uint8Array) return value.length / charactersPerUnit
  if (isCelList(value)) {
    let weight = 1
    for (const element of value) weight += 1 + weightOf(element)
    return weight
  }
  if (isCelMap(value)) {
    let weight = 1
    if (value.size === 0) return weight
    for (const [key, element] of value) weight += 1 + weightOf(key) + weightOf(element)
    return weight
  }
  return 0
}
