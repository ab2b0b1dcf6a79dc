import { describe, expect, test } from 'vitest'
import { consumerRecord, serviceRecord } from '../../test/support/registry-records.ts'
import type { ConsumerRecord } from '../registry/records.ts'
import { compileCondition, type Verdict } from './cel/compile.ts'
import { noRequest } from './facts.ts'
import { verdictOf } from './lasting-verdicts.ts'
import { factsOf } from './policy-engine.ts'
import { bindingsOf, callVariables } from './variables.ts'

const consumer = consumerRecord()
const service = serviceRecord()

interface Calls {
  readonly ofConsumer?: () => ConsumerRecord
  readonly metadataOf?: (index: number) => Readonly<Record<string, string>>
}

/** Verdicts about calls of one consumer to one service, and how often the condition was evaluated for them. */
function ask(
  source: string,
  budgets: readonly number[],
  { ofConsumer = () => consumer, metadataOf = () => ({}) }: Calls = {},
): [Verdict[], number] {
  const condition = compileCondition(source, callVariables)
  let evaluations = 0
  const verdicts = budgets.map((budget, index) => {
    const request = { ...noRequest, size: index, metadata: metadataOf(index) }
    const facts = factsOf({ consumer: ofConsumer(), service }, request, `10.0.0.${index}`, index * 1_000)
    return verdictOf(condition, facts, budget, () => {
      evaluations += 1
      return condition.evaluate(
        bindingsOf(facts, () => ''),
        budget,
      )
    })
  })
  return [verdicts, evaluations]
}

const plenty = [1_000, 1_000, 1_000]

describe('a condition', () => {
  test.each([
    'consumer.tier == "basic"',
    'organization.id != "" && service.name == consumer.name',
    'service.tags.exists(tag, tag == "eu")',
  ])('about who calls what is evaluated once: %s', (source) => {
    const [verdicts, evaluations] = ask(source, plenty)
    expect(evaluations).toBe(1)
    expect(new Set(verdicts).size).toBe(1)
  })

  test.each([
    ['request.size == 1', [false, true, false]],
    ['address == "10.0.0.2"', [false, false, true]],
    ['time == timestamp("1970-01-01T00:00:00Z")', [true, false, false]],
    ['consumer.tier == "none" || request.size == 2', [false, false, true]],
    ['service.tags.all(request, request != "") && request.size == 1', [false, true, false]],
  ])('that reads what passes is evaluated each time: %s', (source, expected) => {
    const [verdicts, evaluations] = ask(source, plenty)
    expect(evaluations).toBe(3)
    expect(verdicts.map((verdict) => verdict.kind === 'value' && verdict.value)).toEqual(expected)
  })

  test.each([
    ['!("banned" in request.metadata)', [true, false, true]],
    ['has(request.metadata.banned) && consumer.tier != "none"', [false, true, false]],
    ['request.metadata.all(name, name != "banned")', [true, false, true]],
  ])('that looks at metadata is evaluated once for all calls without any: %s', (source, expected) => {
    const [verdicts, evaluations] = ask(source, [...plenty, ...plenty], {
      metadataOf: (index) => (index % 3 === 1 ? { banned: 'yes' } : {}),
    })
    expect(verdicts.map((verdict) => verdict.kind === 'value' && verdict.value)).toEqual([...expected, ...expected])
    expect(evaluations).toBe(3)
  })

  test('that looks at more of a request than its metadata is evaluated each time', () => {
    const [verdicts, evaluations] = ask('request.size == 1 || "x" in request.metadata', plenty)
    expect(evaluations).toBe(3)
    expect(verdicts.map((verdict) => verdict.kind === 'value' && verdict.value)).toEqual([false, true, false])
    expect(ask('request.metadata.all(request, request != "x")', plenty)[1]).toBe(3)
  })

  test('is evaluated anew for a record that was made anew', () => {
    const [, evaluations] = ask('consumer.tier == "basic"', plenty, { ofConsumer: () => ({ ...consumer }) })
    expect(evaluations).toBe(3)
  })

  test('that is known costs what it cost, and is stopped by a budget that is too small', () => {
    const [verdicts] = ask('consumer.tier == "basic"', [1_000, 1, 1_000])
    const [first, second, third] = verdicts
    expect(first?.kind).toBe('value')
    expect(second).toMatchObject({ kind: 'error', isCost: true })
    expect(third).toEqual(first)
  })
})
