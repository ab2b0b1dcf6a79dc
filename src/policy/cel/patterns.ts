import { RE2JS } from 're2js'

/** A pattern that may not be used, and why. */
export class PatternError extends Error {
  override readonly name = 'PatternError'
}

const patternMaxLength = 512
/** Steps that a text of n characters can take at worst are n times this. */
const programMaxSize = 500

export interface Pattern {
  readonly regex: RE2JS
  /** Instructions of the compiled program: the most that one character can cost. */
  readonly size: number
}

/**
 * Compiles a regular expression of RE2's syntax (https://github.com/google/re2/wiki/Syntax), whose matching takes time in
 * proportion to the text whatever the two are: there is no backtracking. Throws {@link PatternError}.
 */
export function compilePattern(source: string): Pattern {
  if (source.length > patternMaxLength) throw new PatternError(`has more than ${patternMaxLength} characters`)
  const regex = compile(source)
  const size = regex.programSize()
  if (size > programMaxSize) {
    throw new PatternError(`compiles to ${size} steps, more than ${programMaxSize}: lower its counted repetitions`)
  }
  return { regex, size }
}

function compile(source: string): RE2JS {
  try {
    return RE2JS.compile(source)
  } catch (error) {
    throw new PatternError(`is no RE2 pattern: ${error instanceof Error ? error.message : String(error)}`)
  }
}

const kept = new Map<string, Pattern>()
const keptMax = 256

/** As {@link compilePattern}, and keeps the last few: an expression gives its patterns as strings each time it runs. */
export function keptPattern(source: string): Pattern {
  const known = kept.get(source)
  if (known !== undefined) return known
  const pattern = compilePattern(source)
  if (kept.size >= keptMax) kept.delete(kept.keys().next().value ?? '')
  kept.set(source, pattern)
  return pattern
}
