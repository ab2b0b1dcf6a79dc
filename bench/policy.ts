/**
 * `node bench/policy.ts [--json FILE]`
 *
 * What policies cost a call: µs a decision of the built-in engine without a policy (grants alone), with ten policies that
 * look at facts, with those and one that looks into the content, for a prompt of 200 characters and one of 20,000; beside
 * each the share of a JSON.parse of the same body. Every decision makes its own facts, as in the gate. Medians of eleven rounds.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { ContentAction, ContentKind, PolicySpecSchema } from '../gen/marketplace/v1/policy_pb.ts'
import type { RequestFacts } from '../src/policy/facts.ts'
import { createLocalJudge, defaultLimits } from '../src/policy/judge.ts'
import { createPolicyEngine } from '../src/policy/policy-engine.ts'
import type { PolicyRecord } from '../src/policy/policy-record.ts'
import { emptyProfile } from '../src/registry/service-profile.ts'
import { consumerRecord, serviceRecord } from '../test/support/registry-records.ts'
import { describeMachine } from './report.ts'

const { values: flags } = parseArgs({ options: { json: { type: 'string' } } })
const rounds = 11
const roundMs = 300

type Spec = MessageInitShape<typeof PolicySpecSchema>

/** What a platform team might have in force; all of them let the call pass. */
const specs: readonly Spec[] = [
  { when: 'service.name == "internal"', rule: { case: 'access', value: { allowIf: 'consumer.tier == "premium"' } } },
  {
    rule: {
      case: 'access',
      value: { allowIf: 'consumer.status == "active" && consumer.tier in ["basic", "premium"]' },
    },
  },
  { rule: { case: 'access', value: { allowedCidrs: ['10.0.0.0/8', '192.168.0.0/16'] } } },
  { when: 'time.getDayOfWeek() in [0, 6]', rule: { case: 'cost', value: { maxInputTokens: 100_000n } } },
  { rule: { case: 'cost', value: { maxOutputTokens: 8_192n, maxInputTokens: 200_000n } } },
  {
    when: 'request.model.startsWith("gpt")',
    rule: { case: 'access', value: { allowIf: 'address.inCidr("10.0.0.0/8")' } },
  },
  {
    when: '"team" in request.metadata',
    rule: { case: 'access', value: { allowIf: 'request.metadata.team != "banned"' } },
  },
  { when: 'request.stream', rule: { case: 'access', value: { allowIf: 'request.max_output_tokens < 100000' } } },
  { rule: { case: 'dataClassification', value: { metadataKey: 'classification' } } },
  { when: 'service.tags.exists(tag, tag == "eu")', rule: { case: 'dataResidency', value: { allowedRegions: ['eu'] } } },
]
const content: Spec = {
  rule: {
    case: 'content',
    value: {
      kinds: [ContentKind.EMAIL, ContentKind.IBAN, ContentKind.PAYMENT_CARD, ContentKind.SECRET],
      action: ContentAction.REDACT,
    },
  },
}

const consumer = consumerRecord({
  id: 'consumer-1',
  tier: 'premium',
  grantedServices: new Set(['*']),
})
const compliance = { classification: 'confidential', certifications: [], regions: ['eu'] } as const
const service = serviceRecord({
  id: 'service-1',
  name: 'chat',
  profile: { ...emptyProfile, tags: ['eu', 'chat'], compliance },
})

function records(wanted: readonly Spec[]): PolicyRecord[] {
  return wanted.map((spec, index) => ({
    id: `policy-${index}`,
    name: `policy-${index}`,
    version: 1,
    mode: 'enforce',
    spec: create(PolicySpecSchema, spec),
  }))
}

function requestFacts(size: number): RequestFacts {
  return {
    model: 'gpt-5',
    kind: 'chat',
    stream: true,
    size,
    inputTokens: Math.ceil(size / 4),
    maxOutputTokens: 512,
    costNanos: 30_000,
    currency: 'USD',
    metadata: { team: 'shop' },
    keyId: 'key',
    userAgent: 'bench',
  }
}

function payloadOf(characters: number): Uint8Array {
  const prompt = 'Please summarize the meeting of 14 May with Ada, Grace and 3 others. '
    .repeat(characters)
    .slice(0, characters)
  return Buffer.from(JSON.stringify({ model: 'gpt-5', messages: [{ role: 'user', content: prompt }] }))
}

/** µs of processor time of one run of `work`: a machine that does other things, too, does not count against it. */
function measure(work: () => void): number {
  const times: number[] = []
  for (let round = 0; round <= rounds; round += 1) {
    const started = process.cpuUsage()
    const startMs = performance.now()
    let runs = 0
    while (performance.now() - startMs < roundMs) {
      for (let i = 0; i < 100; i += 1) work()
      runs += 100
    }
    const { user, system } = process.cpuUsage(started)
    // The first round is the run-in.
    if (round > 0) times.push((user + system) / runs)
  }
  times.sort((a, b) => a - b)
  return times[Math.floor(times.length / 2)] ?? 0
}

function decisionsWith(wanted: readonly Spec[], payload: Uint8Array): () => void {
  const policies = records(wanted)
  const judge = createLocalJudge({ policies: () => policies, failMode: 'closed', limits: defaultLimits })
  const engine = createPolicyEngine(judge, Date.now)
  return () => {
    const request = (): RequestFacts => requestFacts(payload.length)
    const decision = engine.validateConsumption({ consumer, service, payload, address: '10.1.2.3', request })
    if (!('allowed' in decision) || !decision.allowed) throw new Error('a policy of the benchmark denies')
  }
}

const cases = [
  { name: 'grants alone', specs: [], characters: 200 },
  { name: 'ten policies', specs, characters: 200 },
  { name: 'ten policies and content', specs: [...specs, content], characters: 200 },
  { name: 'ten policies and content', specs: [...specs, content], characters: 20_000 },
]
const results = cases.map(({ name, specs: wanted, characters }) => {
  const payload = payloadOf(characters)
  const us = measure(decisionsWith(wanted, payload))
  const parseUs = measure(() => JSON.parse(Buffer.from(payload).toString()))
  return { name, characters, us, parseUs }
})

console.log(describeMachine(false))
for (const { name, characters, us, parseUs } of results) {
  const ratio = (us / parseUs).toFixed(1)
  console.log(`${name}, prompt of ${characters}: ${us.toFixed(2)} µs, ${ratio} times a JSON.parse of the body`)
}
if (flags.json !== undefined) writeFileSync(flags.json, JSON.stringify(results, undefined, 2))
