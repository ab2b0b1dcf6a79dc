import { expect, test } from 'vitest'
import { callFacts } from '../../../test/support/call-facts.ts'
import { type CallFacts, noRequest } from '../facts.ts'
import { bindingsOf, callVariables, serviceVariables } from '../variables.ts'
import { compileCondition, ExpressionError, type Verdict } from './compile.ts'

const facts: CallFacts = {
  ...callFacts,
  service: { ...callFacts.service, regions: ['eu', 'us'], certifications: ['iso27001'] },
  request: { ...noRequest, size: 2_000, maxOutputTokens: 100, metadata: { team: 'a' } },
  timeMs: Date.UTC(2026, 10, 21, 12, 30),
}

function evaluate(source: string, budget = 100_000, text = ''): Verdict {
  return compileCondition(source, callVariables).evaluate(
    bindingsOf(facts, () => text),
    budget,
  )
}

function errorOf(source: string): ExpressionError {
  try {
    compileCondition(source, callVariables)
  } catch (error) {
    if (error instanceof ExpressionError) return error
    throw error
  }
  throw new Error(`${source} was compiled`)
}

test.each([
  ['consumer.tier == "basic" && request.max_output_tokens <= 100', true],
  ['consumer.home_region in service.regions', true],
  ['service.regions.all(region, region == consumer.home_region)', false],
  ['service.regions.exists_one(region, region.startsWith("u"))', true],
  ['service.regions.map(region, region + "!") == ["eu!", "us!"]', true],
  ['service.regions.filter(region, region != "us").size() == 1', true],
  ['level(consumer.clearance) < level(service.classification)', true],
  ['address.inCidr("10.0.0.0/8") && !address.inCidr("10.2.0.0/16")', true],
  ['"team" in request.metadata && request.metadata.team == "a"', true],
  ['has(request.metadata.other)', false],
  ['time.getHours() == 12 && time.getHours("Asia/Tokyo") == 21', true],
  ['time < timestamp("2026-11-21T12:31:00Z")', true],
  ['consumer.name.matches("^s.*p$")', true],
  ['{"a": 1}["a"] + int("2") == 3', true],
  ['request.size > 10 ? request.stream : true', false],
  ['false && request.metadata["missing"] == ""', false],
])('%s is %s', (source, value) => {
  expect(evaluate(source)).toMatchObject({ kind: 'value', value })
})

test.each([
  ['consumer.tier == 1', 1, 15, "found no matching overload for '_==_' applied to '(string, int)'"],
  ['consumer.teir == "basic"', 1, 9, "undefined field 'teir' of consumer; it has: id, project_id, name, tier"],
  ['customer.tier == "basic"', 1, 1, "undeclared reference to 'customer'; there are: consumer, organization"],
  ['request.size > 0 &&\n  request.size.size() > 1', 2, 15, "found no matching overload for 'size'"],
  ['request.size + 1', 1, 1, "expected type 'bool' but found 'int'"],
  ['request.size && true', 1, 8, "expected type 'bool' but found 'int'"],
  ['request.size ? true : false', 1, 8, "expected type 'bool' but found 'int'"],
  ['true ? 1 : "one"', 1, 1, "found no matching overload for '_?_:_'"],
  ['service.regions.all(region, region)', 1, 29, "expected type 'bool' but found 'string'"],
  ['consumer.name.all(letter, true)', 1, 9, "expression of type 'string' cannot be the range of a macro"],
  ['1 in service.regions', 1, 2, "found no matching overload for '@in' applied to '(int, list(string))'"],
  ['request.metadata[1] == ""', 1, 17, "found no matching overload for '_[_]'"],
  ['consumer["tier"] == ""', 1, 9, "found no matching overload for '_[_]'"],
  ['consumer.name.shout() == ""', 1, 14, "undeclared reference to function 'shout'"],
  ['Consumer{} == consumer', 1, 1, "there is no type 'Consumer'"],
  ['address.inCidr("10.0.0.0/40")', 1, 16, '"10.0.0.0/40" is no network in CIDR notation'],
  ['consumer.name.matches("(a")', 1, 23, 'the pattern is no RE2 pattern'],
  ['consumer.name.matches("(a{1,1000}){1,1000}")', 1, 23, 'the pattern'],
  ['true &&\n  request.', 2, 10, 'cannot be parsed'],
  ['@tick(1)', 1, 1, 'cannot be parsed'],
  [`${'('.repeat(70)}true${')'.repeat(70)}`, 1, 65, 'brackets are nested deeper than 64'],
])('%s is refused at line %d, column %d', (source, line, column, message) => {
  const error = errorOf(source)
  expect(error.message).toContain(message)
  expect(error).toMatchObject({ line, column })
  expect(error.message.startsWith(`${line}:${column}: `)).toBe(true)
})

test('an expression about services knows nothing of a call', () => {
  expect(() => compileCondition('consumer.tier == "basic"', serviceVariables)).toThrow(ExpressionError)
  expect(compileCondition('"eu" in service.regions', serviceVariables).source).toBe('"eu" in service.regions')
})

const ten = '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]'
/** A million steps and more. */
const nested = (body: string): string =>
  ['a', 'b', 'c', 'd', 'e', 'f'].reduceRight((inner, name) => `${ten}.all(${name}, ${inner})`, body)

test.each([
  ['a macro in a macro', nested('a + b + c + d + e + f >= 0')],
  ['one that fails at each step', nested('1 / (a - a) == 0')],
  ['one beside something that is true', `${nested('true')} || true`],
  ['one within a condition that swallows errors', `[1].exists(x, ${nested('true')}) || [1].all(x, true)`],
  ['lists that grow', `${ten}.map(a, ${ten}.map(b, ${ten}.map(c, ${ten}.map(d, ${ten}.map(e, e))))).size() > 0`],
  ['a long number', 'int(request.text) > 0'],
  ['a pattern on a long text', 'request.text.matches("(1|2)*1(1|2){40}$")'],
  ['a long text, often', `${ten}.all(a, ${ten}.all(b, request.text.contains("x") || true))`],
])('%s is stopped by its cost', (_, source) => {
  const verdict = evaluate(source, 20_000, '1'.repeat(200_000))
  expect(verdict).toEqual({
    kind: 'error',
    isCost: true,
    cost: 20_000,
    error: 'used its budget of 20000 cost units',
  })
})

test('a step of a macro is charged for all that stands in it, though no function is called', () => {
  const wide = Array.from({ length: 300 }, () => 'true').join(' && ')
  const { cost } = evaluate(`${ten}.all(a, ${ten}.all(b, ${wide}))`)
  expect(cost).toBeGreaterThan(100 * 300)
})

test('an expression that was stopped leaves the next one its whole budget', () => {
  const condition = compileCondition('consumer.tier == "basic"', callVariables)
  const bindings = bindingsOf(facts, () => '')
  const { cost } = condition.evaluate(bindings, 1_000)
  expect(evaluate(nested('true'), 1_000)).toMatchObject({ isCost: true })
  expect(condition.evaluate(bindings, cost)).toEqual({ kind: 'value', value: true, cost })
  expect(condition.evaluate(bindings, cost - 1)).toMatchObject({ isCost: true })
})

test('what fails says nothing of what the call carries', () => {
  const verdict = evaluate('int(request.text) > 0', 100_000, 'secret')
  expect(verdict).toMatchObject({ kind: 'error', isCost: false })
  expect(JSON.stringify(verdict)).not.toContain('secret')
})
