import { create, type MessageInitShape } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DataClassification } from '../../gen/marketplace/v1/classification_pb.ts'
import { ContentAction, ContentKind, PolicySpecSchema } from '../../gen/marketplace/v1/policy_pb.ts'
import { callFacts } from '../../test/support/call-facts.ts'
import { compileRule } from './compile-policy.ts'
import { type ActivePolicy, decide, type PolicyFailure } from './decide.ts'
import { type CallFacts, noRequest, type RequestFacts } from './facts.ts'
import type { ActiveMode } from './policy-record.ts'
import { subjectOf } from './subject.ts'

type Spec = MessageInitShape<typeof PolicySpecSchema>

const limits = { cost: 10_000, scanned: 1_000 }
const payload = Buffer.from('{"content":"bob@example.org"}')

function policy(name: string, spec: Spec, mode: ActiveMode = 'enforce'): ActivePolicy {
  const message = create(PolicySpecSchema, spec)
  return { record: { id: name, name, version: 1, mode, spec: message }, rule: compileRule(message) }
}

function content(name: string, action: ContentAction, mode?: ActiveMode): ActivePolicy {
  return policy(name, { rule: { case: 'content', value: { kinds: [ContentKind.EMAIL], action } } }, mode)
}

const deny = policy('deny', { rule: { case: 'access', value: {} } })
const redact = content('redact', ContentAction.REDACT)
const mark = content('mark', ContentAction.MARK)
const quiet = policy('quiet', { when: 'false', rule: { case: 'access', value: {} } })

function decision(
  policies: readonly ActivePolicy[],
  changes: Partial<CallFacts> = {},
  failMode: 'open' | 'closed' = 'closed',
) {
  return decide(policies, subjectOf({ ...callFacts, ...changes }, payload, limits), failMode)
}

describe('of several policies', () => {
  test('a denial overrides in any order, and every violation is named', () => {
    const all = [deny, redact, mark, quiet]
    fc.assert(
      fc.property(fc.shuffledSubarray(all), (policies) => {
        const { allowed, reason, violations, marks, payload: sent } = decision(policies)
        expect(allowed).toBe(!policies.includes(deny))
        expect(reason === '').toBe(allowed)
        const broken = policies.filter((each) => each !== quiet).map(({ record }) => record.id)
        expect(violations.map(({ policyId }) => policyId)).toEqual(broken)
        expect(marks).toEqual(allowed && policies.includes(mark) ? ['email'] : [])
        const isRedacted = allowed && policies.includes(redact)
        expect(sent && Buffer.from(sent).toString()).toBe(isRedacted ? '{"content":"[redacted:email]"}' : undefined)
      }),
    )
  })

  test('those that only audit change nothing, and are told', () => {
    const audits = [
      policy('deny', { rule: { case: 'access', value: {} } }, 'audit_only'),
      content('redact', ContentAction.REDACT, 'audit_only'),
      content('mark', ContentAction.MARK, 'audit_only'),
      policy('broken', { when: '1 / 0 == 1', rule: { case: 'access', value: {} } }, 'audit_only'),
    ]
    fc.assert(
      fc.property(fc.shuffledSubarray(audits), fc.shuffledSubarray([deny, redact, mark]), (quietly, enforced) => {
        const alone = decision(enforced)
        const both = decision([...quietly, ...enforced])
        expect({ ...both, violations: both.violations.filter(({ outcome }) => outcome !== 'audited') }).toEqual(alone)
        expect(both.violations.filter(({ outcome }) => outcome === 'audited')).toHaveLength(quietly.length)
      }),
    )
  })
})

test('each policy has a budget of its own', () => {
  const long = [1, 2, 3, 4].map((n) => {
    const allowIf = `request.text.contains("${'x'.repeat(30_000)}${n}") || true`
    return policy(`long-${n}`, { rule: { case: 'access', value: { allowIf } } })
  })
  expect(decision(long)).toMatchObject({ allowed: true, violations: [] })
})

describe('a policy that cannot be evaluated', () => {
  const ten = '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]'
  const runaway = ['a', 'b', 'c', 'd', 'e'].reduceRight((inner, each) => `${ten}.all(${each}, ${inner})`, 'true')
  const large = Buffer.from(JSON.stringify('x'.repeat(2_000)))

  test.each([
    ['fails', policy('p', { when: 'request.metadata["x"] == ""', rule: { case: 'access', value: {} } }), false],
    ['runs away', policy('p', { when: runaway, rule: { case: 'access', value: {} } }), true],
    ['is of a newer release', { ...deny, rule: undefined }, false],
    ['would have to look into too much', content('p', ContentAction.MARK), true],
    ['reads too much', policy('p', { when: 'request.text == ""', rule: { case: 'access', value: {} } }), true],
  ])('because it %s denies the call or lets it pass, as configured', (_, broken, isCost) => {
    for (const failMode of ['closed', 'open'] as const) {
      const failures: PolicyFailure[] = []
      const subject = subjectOf(callFacts, large, limits)
      const { allowed, violations } = decide([broken], subject, failMode, (failure) => failures.push(failure))
      expect(failures).toMatchObject([{ policy: broken.record, isCost }])
      expect(allowed).toBe(failMode === 'open')
      expect(violations).toHaveLength(failMode === 'open' ? 0 : 1)
    }
  })
})

describe('a rule', () => {
  function isAllowed(spec: Spec, changes: Partial<CallFacts> = {}): boolean {
    return decision([policy('p', spec)], changes).allowed
  }
  const request = (changes: Partial<RequestFacts>): Partial<CallFacts> => ({ request: { ...noRequest, ...changes } })

  test('of access denies what it does not allow', () => {
    const tiered: Spec = { rule: { case: 'access', value: { allowIf: 'consumer.tier == "premium"' } } }
    expect(isAllowed(tiered)).toBe(false)
    expect(isAllowed(tiered, { consumer: { ...callFacts.consumer, tier: 'premium' } })).toBe(true)
    const near: Spec = { rule: { case: 'access', value: { allowedCidrs: ['10.0.0.0/8', 'fd00::/8'] } } }
    for (const address of ['10.1.2.3', '::ffff:10.1.2.3', 'fd00::1']) expect(isAllowed(near, { address })).toBe(true)
    for (const address of ['11.1.2.3', 'fe80::1', '']) expect(isAllowed(near, { address })).toBe(false)
    const elsewhere: Spec = { when: 'service.name == "other"', rule: { case: 'access', value: {} } }
    expect(isAllowed(elsewhere)).toBe(true)
  })

  test.each([
    // What the request states, the clearance, what the service may receive.
    ['public', 'public', '', true],
    ['internal', 'internal', 'internal', true],
    ['confidential', 'internal', 'restricted', false],
    ['internal', 'restricted', 'public', false],
    ['internal', 'restricted', '', false],
    [undefined, 'confidential', 'internal', false],
    [undefined, 'internal', 'internal', true],
    ['secret', 'restricted', 'restricted', false],
  ])('of classification: %s data, cleared for %s, to %s: %s', (stated, clearance, classification, allowed) => {
    const spec: Spec = { rule: { case: 'dataClassification', value: { metadataKey: 'level' } } }
    const changes = {
      consumer: { ...callFacts.consumer, clearance },
      service: { ...callFacts.service, classification },
      ...request({ metadata: stated === undefined ? {} : { level: stated } }),
    }
    expect(isAllowed(spec, changes)).toBe(allowed)
  })

  test('of classification takes a level for what states none', () => {
    const value = { defaultLevel: DataClassification.PUBLIC }
    const service = { ...callFacts.service, classification: 'public' }
    expect(isAllowed({ rule: { case: 'dataClassification', value } }, { service })).toBe(true)
    expect(isAllowed({ rule: { case: 'dataClassification', value: {} } }, { service })).toBe(false)
  })

  test.each([
    [['eu'], true, true],
    [['eu', 'us'], false, false],
    [['us'], false, false],
    [[], false, false],
  ])('of residency: a service in %j', (regions, inEurope, atHome) => {
    const service = { ...callFacts.service, regions }
    const allowed: Spec = { rule: { case: 'dataResidency', value: { allowedRegions: ['eu', 'ch'] } } }
    expect(isAllowed(allowed, { service })).toBe(inEurope)
    const home: Spec = { rule: { case: 'dataResidency', value: { homeRegionOnly: true } } }
    expect(isAllowed(home, { service })).toBe(atHome)
    expect(isAllowed(home, { service, consumer: { ...callFacts.consumer, homeRegion: '' } })).toBe(false)
  })

  test.each([
    [{ inputTokens: 10, maxOutputTokens: 10, costNanos: 10, currency: 'USD' }, true],
    [{ inputTokens: 11, maxOutputTokens: 10, costNanos: 10, currency: 'USD' }, false],
    [{ inputTokens: 10, maxOutputTokens: 11, costNanos: 10, currency: 'USD' }, false],
    [{ inputTokens: 10, maxOutputTokens: 10, costNanos: 11, currency: 'USD' }, false],
    [{ inputTokens: 10, maxOutputTokens: 10, costNanos: 10, currency: 'EUR' }, false],
    [{ inputTokens: 10, maxOutputTokens: 10, costNanos: 0, currency: '' }, false],
  ])('of cost: %j', (asked, allowed) => {
    const value = { maxCostNanos: 10n, currency: 'USD', maxInputTokens: 10n, maxOutputTokens: 10n }
    expect(isAllowed({ rule: { case: 'cost', value } }, request(asked))).toBe(allowed)
  })
})

const wrong: readonly (readonly [string, Spec])[] = [
  ['spec.rule', {}],
  ['spec.when', { when: 'request', rule: { case: 'access', value: {} } }],
  ['spec.access.allow_if', { rule: { case: 'access', value: { allowIf: '1' } } }],
  ['spec.access.allowed_cidrs[1]', { rule: { case: 'access', value: { allowedCidrs: ['::/0', '1.2.3.4'] } } }],
  ['spec.content', { rule: { case: 'content', value: { action: ContentAction.DENY } } }],
  [
    'spec.content.patterns[0].regex',
    {
      rule: { case: 'content', value: { patterns: [{ name: 'p', regex: '(?<=a)b\\1' }], action: ContentAction.DENY } },
    },
  ],
  ['spec.data_residency', { rule: { case: 'dataResidency', value: {} } }],
  ['spec.cost', { rule: { case: 'cost', value: {} } }],
  ['spec.cost.currency', { rule: { case: 'cost', value: { maxCostNanos: 1n } } }],
  ['spec.rule', { target: 2, rule: { case: 'cost', value: { maxInputTokens: 1n } } }],
]

test.each(wrong)('a spec that is wrong in %s is refused there', (field, spec) => {
  expect(() => compileRule(create(PolicySpecSchema, spec))).toThrow(
    expect.objectContaining({ reason: 'INVALID_ARGUMENT', metadata: expect.objectContaining({ field }) }),
  )
})
