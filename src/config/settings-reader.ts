import type { Mode } from '../config-parsers.ts'
import type { Variable } from './variable.ts'

/** Reads settings one by one and notes all that is wrong with them, so that one message can say everything. */
export interface SettingsReader {
  /** The value of a variable; its default where it is absent, and where it is wrong, which is noted. */
  read<T>(variable: Variable<T>): T
  /** Notes that a setting, well formed by itself, cannot be. */
  refuse<T>(variable: Variable<T>, reason: string, remedy: string): void
  /** Notes the missing one of two settings that only make sense together. */
  needBoth(one: Given, other: Given): void
}

/** A setting with what was read of it. */
export interface Given {
  readonly variable: Variable<string | undefined>
  readonly value: string | undefined
}

/** One wrong setting; `value` is safe to show. */
export interface ConfigProblem {
  readonly name: string
  readonly value: string
  readonly reason: string
  readonly remedy: string
}

/** A reader of `env`. What it finds wrong is added to `problems`. */
export function createSettingsReader(
  env: Readonly<Record<string, string | undefined>>,
  mode: Mode,
  problems: ConfigProblem[],
): SettingsReader {
  function refuse<T>(variable: Variable<T>, reason: string, remedy: string, name = variable.name): void {
    problems.push({ name, value: show(env[name], variable.secret), reason, remedy })
  }

  return {
    read(variable) {
      const name = [variable.name, ...variable.aliases].find((candidate) => env[candidate])
      const text = name === undefined ? undefined : env[name]
      if (name === undefined || text === undefined) return variable.defaults[mode]
      const parsed = variable.parser.parse(text)
      if ('value' in parsed) return parsed.value
      refuse(variable, parsed.reason, `Set it to ${variable.parser.expects}`, name)
      return variable.defaults[mode]
    },

    refuse: (variable, reason, remedy) => refuse(variable, reason, remedy),

    needBoth(one, other) {
      if ((one.value === undefined) === (other.value === undefined)) return
      const [missing, set] = one.value === undefined ? [one, other] : [other, one]
      refuse(missing.variable, `is missing while ${set.variable.name} is set`, 'Set both or none')
    },
  }
}

function show(text: string | undefined, secret: boolean): string {
  if (!text) return '(not set)'
  if (secret) return `(set, ${text.length} characters)`
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)
}
