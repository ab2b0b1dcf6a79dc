import type { DataClassification } from '../../gen/marketplace/v1/classification_pb.ts'
import { ContentAction, type PolicySpec, PolicyTarget } from '../../gen/marketplace/v1/policy_pb.ts'
import { TollgateError } from '../errors.ts'
import { classificationOf } from '../registry/classification.ts'
import { type Condition, compileCondition, ExpressionError } from './cel/compile.ts'
import { type Network, parseNetwork } from './cel/networks.ts'
import { compilePattern, PatternError } from './cel/patterns.ts'
import { compileScanner } from './content/content.ts'
import { levelOf } from './levels.ts'
import { judgeAccess, judgeClassification, judgeContent, judgeCost, judgeResidency } from './rules.ts'
import { type Breach, readsText, type Subject } from './subject.ts'
import { callVariables, serviceVariables } from './variables.ts'

/** A rule that is ready to be asked, compiled once a version. */
export interface CompiledRule {
  readonly target: 'calls' | 'services'
  readonly kind: RuleKind
  /** Whether an expression reads what the request says. */
  readonly readsText: boolean
  /** Whether the rule is about a subject. Throws what {@link Subject.holds} throws. */
  applies(subject: Subject): boolean
  /** How a subject that it is about breaks it; undefined when it does not. Throws what {@link Subject.holds} throws. */
  judge(subject: Subject): Breach | undefined
}

export type RuleKind = Exclude<PolicySpec['rule']['case'], undefined>

type Judge = (subject: Subject) => Breach | undefined

/** Throws INVALID_ARGUMENT naming the field, and the line and column of an expression. */
export function compileRule(spec: PolicySpec): CompiledRule {
  const target = spec.target === PolicyTarget.SERVICES ? 'services' : 'calls'
  const conditions: Condition[] = []

  function condition(source: string, field: string): Condition | undefined {
    if (source.trim() === '') return undefined
    try {
      const compiled = compileCondition(source, target === 'services' ? serviceVariables : callVariables)
      conditions.push(compiled)
      return compiled
    } catch (error) {
      if (error instanceof ExpressionError) throw badExpression(field, error)
      throw error
    }
  }

  const { rule } = spec
  const { case: kind } = rule
  if (kind === undefined) throw invalid('spec.rule', 'must be one of the kinds of rules')
  if (target === 'services' && kind !== 'access' && kind !== 'dataResidency') {
    throw invalid('spec.rule', 'must be access or data_residency in a policy for services')
  }
  const when = condition(spec.when, 'spec.when')
  const judge = compileJudge(spec, target, condition)
  return {
    target,
    kind,
    readsText: conditions.some(readsText),
    applies: (subject) => when === undefined || subject.holds(when),
    judge,
  }
}

function compileJudge(
  { rule }: PolicySpec,
  target: CompiledRule['target'],
  condition: (source: string, field: string) => Condition | undefined,
): Judge {
  switch (rule.case) {
    case 'access': {
      const { allowedCidrs, allowIf } = rule.value
      if (target === 'services' && allowedCidrs.length > 0) {
        throw invalid('spec.access.allowed_cidrs', 'must be empty in a policy for services')
      }
      return judgeAccess(condition(allowIf, 'spec.access.allow_if'), allowedCidrs.map(network))
    }
    case 'dataClassification':
      return judgeClassification(rule.value.metadataKey, rankOf(rule.value.defaultLevel))
    case 'content': {
      const { action, kinds, patterns } = rule.value
      if (kinds.length + patterns.length === 0) throw invalid('spec.content', 'must name a kind or a pattern')
      for (const [index, { regex }] of patterns.entries()) checkPattern(regex, `spec.content.patterns[${index}].regex`)
      return judgeContent(actions[action] ?? 'deny', compileScanner(rule.value))
    }
    case 'dataResidency': {
      const { allowedRegions, homeRegionOnly } = rule.value
      if (allowedRegions.length === 0 && !homeRegionOnly) {
        throw invalid('spec.data_residency', 'must name allowed_regions, or set home_region_only')
      }
      if (target === 'services' && homeRegionOnly) {
        throw invalid('spec.data_residency.home_region_only', 'must be false in a policy for services')
      }
      return judgeResidency(new Set(allowedRegions), homeRegionOnly)
    }
    case 'cost': {
      const { maxCostNanos, currency, maxInputTokens, maxOutputTokens } = rule.value
      if (maxCostNanos === 0n && maxInputTokens === 0n && maxOutputTokens === 0n) {
        throw invalid('spec.cost', 'must set a ceiling')
      }
      if (maxCostNanos > 0n !== (currency !== '')) {
        throw invalid('spec.cost.currency', 'must be set with max_cost_nanos, and only with it')
      }
      return judgeCost({
        costNanos: Number(maxCostNanos),
        currency,
        inputTokens: Number(maxInputTokens),
        outputTokens: Number(maxOutputTokens),
      })
    }
    case undefined:
      throw invalid('spec.rule', 'must be one of the kinds of rules')
  }
}

function network(cidr: string, index: number): Network {
  const parsed = parseNetwork(cidr)
  if (parsed !== undefined) return parsed
  throw invalid(`spec.access.allowed_cidrs[${index}]`, 'must be a network in CIDR notation, such as "10.0.0.0/8"')
}

function checkPattern(regex: string, field: string): void {
  try {
    compilePattern(regex)
  } catch (error) {
    if (error instanceof PatternError) throw invalid(field, error.message)
    throw error
  }
}

const actions: Readonly<Record<ContentAction, Breach['action']>> = {
  [ContentAction.UNSPECIFIED]: 'deny',
  [ContentAction.DENY]: 'deny',
  [ContentAction.REDACT]: 'redact',
  [ContentAction.MARK]: 'mark',
}

function rankOf(level: DataClassification): number | undefined {
  const name = classificationOf(level)
  return name === undefined ? undefined : levelOf(name)
}

function badExpression(field: string, { message, line, column }: ExpressionError): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `${field} ${message}`, {
    fields: [{ field, description: message, rule: 'cel' }],
    metadata: { field, line: String(line), column: String(column) },
  })
}

function invalid(field: string, description: string): TollgateError {
  return new TollgateError('INVALID_ARGUMENT', `${field} ${description}`, {
    fields: [{ field, description }],
    metadata: { field },
  })
}
