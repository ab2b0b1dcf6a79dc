import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { expect, test } from 'vitest'
import { ContentAction, ContentKind, PolicySpecSchema } from '../../gen/marketplace/v1/policy_pb.ts'
import { consumerRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { compileRule } from './compile-policy.ts'
import type { RecordedDecision } from './decision-store.ts'
import { type DryRun, dryRun, maxDifferences } from './dry-run.ts'
import { noRequest } from './facts.ts'
import { factsOf } from './policy-engine.ts'

const limits = { cost: 10_000, scanned: 1_000 }
const parties = { consumer: consumerRecord(), service: serviceRecord() }

/** A call that asked for so many output tokens, and whom it was denied by. */
function call(maxOutputTokens: number, ...deniedBy: string[]): RecordedDecision {
  const facts = factsOf(parties, { ...noRequest, maxOutputTokens }, '10.0.0.1', 0)
  return { id: 'id', requestId: `${maxOutputTokens}`, allowed: deniedBy.length === 0, facts, deniedBy }
}

function run(
  decisions: readonly RecordedDecision[],
  spec: MessageInitShape<typeof PolicySpecSchema>,
  pause = async (): Promise<void> => {},
): Promise<DryRun> {
  return dryRun(decisions, compileRule(create(PolicySpecSchema, spec)), 'replaced', limits, pause)
}

const ceiling = { rule: { case: 'access', value: { allowIf: 'request.max_output_tokens <= 100' } } } as const

test('only the policy that is replaced changes sides, and what others denied stays denied', async () => {
  const calls = [
    call(50),
    call(200),
    call(50, 'replaced'),
    call(200, 'replaced'),
    call(50, 'other'),
    call(50, 'replaced', 'other'),
    call(200, 'other'),
  ]
  const { differences, ...counts } = await run(calls, ceiling)
  expect(counts).toEqual({ examined: 7, newlyDenied: 1, newlyAllowed: 1, undecided: 0 })
  expect(differences).toMatchObject([
    { decision: calls[1], wouldBeAllowed: false, reason: expect.stringContaining('may not use') },
    { decision: calls[2], wouldBeAllowed: true, reason: '' },
  ])
})

test('what cannot be told from what is recorded is undecided', async () => {
  const calls = [call(50), call(200)]
  const about = create(PolicySpecSchema, {
    when: 'request.max_output_tokens > 100',
    rule: { case: 'content', value: { kinds: [ContentKind.EMAIL], action: ContentAction.DENY } },
  })
  expect(await run(calls, about)).toMatchObject({ undecided: 1, newlyDenied: 0 })
  expect(await run(calls, { when: 'request.text == ""', ...ceiling })).toMatchObject({ undecided: 2 })
  expect(await run(calls, { when: 'request.metadata["x"] == ""', ...ceiling })).toMatchObject({ undecided: 2 })
  expect(await run(calls, { target: 2, rule: { case: 'access', value: {} } })).toMatchObject({ newlyDenied: 0 })
})

test('of many differences all are counted, and some are shown', async () => {
  const { newlyDenied, differences } = await run(
    Array.from({ length: 150 }, () => call(200)),
    ceiling,
  )
  expect(newlyDenied).toBe(150)
  expect(differences).toHaveLength(maxDifferences)
})

test('others have their turn between the calls, and whoever asked can end it', async () => {
  let pauses = 0
  const pause = async (): Promise<void> => {
    pauses += 1
    if (pauses === 4) throw new Error('gone')
  }
  const calls = Array.from({ length: 100 }, () => call(200))
  await expect(run(calls, ceiling, pause)).rejects.toThrow('gone')
})
