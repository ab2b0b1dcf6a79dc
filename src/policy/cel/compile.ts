/**
 * From the text of a policy expression to something that can be asked many times.
 *
 * text → parse → check types → put meters in → plan
 *
 * The library evaluates without a limit. Two things can make an expression run long: macros, which nest, and functions on
 * large values. So every step of a macro and every call of a function charges a meter before it runs, and what the meter
 * throws when the budget is used up goes through the whole evaluation: `||` and `all` cannot swallow it, as they do with
 * errors. What is left (operators, selections, literals) is bounded by the size of the expression, which is charged at the
 * start and with each step. Counting in the evaluator was chosen over a worker with a timeout: that costs two thread
 * switches a call, 30 µs and more, and kills an innocent expression on a busy machine.
 */
import { type CelEnv, type CelInput, celEnv, isCelError, parse, plan } from '@bufbuild/cel'
import { CheckError, check, type Expr } from './check.ts'
import { meteredFunctions, rangeName, tickName } from './functions.ts'
import { CostExceeded, Meter } from './meter.ts'
import { bool, fits, type Type, typeName } from './types.ts'

/** An expression that may not be stored, and where in it the reason is. Lines and columns count from 1. */
export class ExpressionError extends Error {
  override readonly name = 'ExpressionError'
  readonly line: number
  readonly column: number

  constructor(source: string, offset: number, message: string) {
    const before = source.slice(0, offset)
    const line = before.split('\n').length
    const column = offset - before.lastIndexOf('\n')
    super(`${line}:${column}: ${message}`)
    this.line = line
    this.column = column
  }
}

/** What became of an evaluation. */
export type Verdict =
  | { readonly kind: 'value'; readonly value: boolean; readonly cost: number }
  /** It failed, or used up its budget. The message names no value. */
  | { readonly kind: 'error'; readonly error: string; readonly isCost: boolean; readonly cost: number }

export type Bindings = Readonly<Record<string, CelInput>>

export interface Condition {
  readonly source: string
  /** Names of all fields that it reads. */
  readonly reads: ReadonlySet<string>
  /**
   * What it looks at: variables, and what macros call their elements, by name; where it selects a field of one, as
   * "name.field".
   */
  readonly looksAt: ReadonlySet<string>
  /** Never throws. `budget` is in units of {@link Meter}. */
  evaluate(variables: Bindings, budget: number): Verdict
}

/** Deepest nesting of brackets; the parser is recursive. */
const maxNesting = 64

/** Compiles an expression that must be a condition. Throws {@link ExpressionError}. */
export function compileCondition(source: string, variables: ReadonlyMap<string, Type>): Condition {
  const parsed = parsing(source)
  const positions = parsed.sourceInfo?.positions ?? {}
  const at = (id: bigint): number => positions[String(id)] ?? 0
  let type: Type
  try {
    type = check(parsed.expr, variables)
  } catch (error) {
    if (error instanceof CheckError) throw new ExpressionError(source, at(error.id), error.message)
    if (error instanceof RangeError) throw new ExpressionError(source, 0, 'is nested too deep')
    throw error
  }
  if (!fits(type, bool)) {
    throw new ExpressionError(
      source,
      0,
      `expected type 'bool' but found '${typeName(type)}': a condition is true or false`,
    )
  }
  const uses = { fields: new Set<string>(), looksAt: new Set<string>() }
  const size = instrument(parsed.expr, uses)
  const program = plan(metered, parsed.expr)
  return {
    source,
    reads: uses.fields,
    looksAt: uses.looksAt,
    evaluate(bindings, budget) {
      meter.start(budget)
      let result: unknown
      try {
        meter.charge(size)
        result = program(bindings)
      } catch (error) {
        result = error
      }
      const cost = Math.ceil(meter.used)
      if (typeof result === 'boolean') return { kind: 'value', value: result, cost }
      return { kind: 'error', ...failureOf(result), cost }
    },
  }
}

/** One for all expressions: an evaluation runs to its end before the next one begins. */
const meter = new Meter()
const metered: CelEnv = celEnv({ funcs: meteredFunctions(meter) })

function parsing(source: string): ReturnType<typeof parse> {
  const deep = tooDeepAt(source)
  if (deep !== undefined) throw new ExpressionError(source, deep, `brackets are nested deeper than ${maxNesting}`)
  try {
    return parse(source)
  } catch (error) {
    if (error instanceof RangeError) throw new ExpressionError(source, 0, 'is nested too deep')
    const message = error instanceof Error ? error.message : String(error)
    const [, line = '1', column = '1', text = message] = /^<input>:(\d+):(\d+): ([\s\S]*)$/.exec(message) ?? []
    const lines = source.split('\n').slice(0, Number(line) - 1)
    const offset = lines.reduce((sum, each) => sum + each.length + 1, 0) + Number(column) - 1
    throw new ExpressionError(source, offset, `cannot be parsed: ${text}`)
  }
}

function tooDeepAt(source: string): number | undefined {
  let depth = 0
  for (let at = 0; at < source.length; at += 1) {
    const char = source[at]
    if (char === '(' || char === '[' || char === '{') depth += 1
    else if (char === ')' || char === ']' || char === '}') depth -= 1
    if (depth > maxNesting) return at
  }
  return undefined
}

/** What an expression uses. */
interface Uses {
  readonly fields: Set<string>
  readonly looksAt: Set<string>
}

/** Puts the meters into a parsed expression; returns its size, and notes what it uses. */
function instrument(expr: Expr, uses: Uses): number {
  const { exprKind } = expr
  switch (exprKind.case) {
    case 'identExpr':
      uses.looksAt.add(exprKind.value.name)
      return 1
    case 'selectExpr': {
      const { operand, field } = exprKind.value
      uses.fields.add(field)
      if (operand?.exprKind.case !== 'identExpr') return 1 + sizeOf([operand], uses)
      uses.looksAt.add(`${operand.exprKind.value.name}.${field}`)
      return 2
    }
    case 'callExpr': {
      const { target, args } = exprKind.value
      return 1 + sizeOf([target, ...args], uses)
    }
    case 'listExpr':
      return 1 + sizeOf(exprKind.value.elements, uses)
    case 'structExpr':
      return (
        1 +
        sizeOf(
          exprKind.value.entries.flatMap(({ keyKind, value }) => [
            keyKind.case === 'mapKey' ? keyKind.value : undefined,
            value,
          ]),
          uses,
        )
      )
    case 'comprehensionExpr': {
      const fold = exprKind.value
      const { iterRange, accuInit, loopCondition, loopStep, result } = fold
      const outside = sizeOf([iterRange, accuInit, result], uses)
      const inside = sizeOf([loopCondition, loopStep], uses)
      if (iterRange !== undefined) fold.iterRange = call(iterRange.id, rangeName, [iterRange])
      if (loopCondition !== undefined) {
        const tick = call(loopCondition.id, tickName, [intConstant(loopCondition.id, inside)])
        fold.loopCondition = call(loopCondition.id, '_&&_', [tick, loopCondition])
      }
      return 1 + outside
    }
    default:
      return 1
  }
}

function sizeOf(parts: readonly (Expr | undefined)[], uses: Uses): number {
  return parts.reduce((sum, part) => sum + (part === undefined ? 0 : instrument(part, uses)), 0)
}

function call(id: bigint, name: string, args: Expr[]): Expr {
  return {
    $typeName: 'cel.expr.Expr',
    id,
    exprKind: { case: 'callExpr', value: { $typeName: 'cel.expr.Expr.Call', function: name, args } },
  }
}

function intConstant(id: bigint, value: number): Expr {
  return {
    $typeName: 'cel.expr.Expr',
    id,
    exprKind: {
      case: 'constExpr',
      value: { $typeName: 'cel.expr.Constant', constantKind: { case: 'int64Value', value: BigInt(value) } },
    },
  }
}

function failureOf(result: unknown): { readonly error: string; readonly isCost: boolean } {
  const cause = isCelError(result) ? result.cause : result
  if (cause instanceof CostExceeded) return { error: cause.message, isCost: true }
  // The texts of other errors may quote what the call carries.
  return {
    error: 'failed: a key that is not there, a division by zero, an overflow, or a value of another type',
    isCost: false,
  }
}
