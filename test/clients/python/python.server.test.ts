import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { ConsumptionService } from '../../../gen/marketplace/v1/consumption_pb.ts'
import { CallStatus, type UsageRecord, UsageService } from '../../../gen/marketplace/v1/usage_pb.ts'
import { type PracticeRecord, readPracticeLog } from '../../../src/practice/log.ts'
import { eventually } from '../../support/eventually.ts'
import { at, has, type Json, list, number, string } from '../../support/json.ts'
import { chat } from '../../support/payloads.ts'
import { demoFacts, startTollgate, type Tollgate } from '../../support/tollgate.ts'
import { toolTimeoutMs } from '../../support/tools.ts'
import { createScenarios, type Scenarios } from './scenario.ts'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

let tollgate: Tollgate
let facts: Record<string, string>
let python: Scenarios

beforeAll(async () => {
  tollgate = await startTollgate({ command: 'dev' })
  facts = await demoFacts(tollgate)
  python = await createScenarios(facts)
}, toolTimeoutMs)

afterAll(async () => {
  await python?.close()
  await tollgate?.stop()
})

describe('a Python client of the reference proto', () => {
  test('routes requests and reads the quota that they used', async () => {
    const told = await python.play('route.py')
    for (const name of ['plain', 'packed']) {
      const answer = at(told, name)
      expect(answer).toMatchObject({ requestId: expect.stringMatching(uuid), choices: 1, currency: 'USD' })
      expect(number(at(answer, 'amount'))).toBeGreaterThan(0)
      expect(number(at(answer, 'outputTokens'))).toBeGreaterThan(0)
      expect(at(answer, 'totalTokens')).toBe(number(at(answer, 'inputTokens')) + number(at(answer, 'outputTokens')))
    }
    const used = number(at(told, 'plain', 'totalTokens')) + number(at(told, 'packed', 'totalTokens'))
    expect(at(told, 'before', 'limit')).toBe(1_000_000_000)
    expect(at(told, 'after')).toEqual({
      ...Object(at(told, 'before')),
      remaining: number(at(told, 'before', 'remaining')) - used,
    })
    expect(at(told, 'after', 'resetAt')).toBe(nextMonth(new Date()))
  })

  test('is refused with the status that says why, and can go on calling', async () => {
    const told = await python.play('refused.py')
    const expected = {
      noKey: ['UNAUTHENTICATED', 'CREDENTIAL_MISSING'],
      malformedKey: ['UNAUTHENTICATED', 'CREDENTIAL_INVALID'],
      wrongKey: ['UNAUTHENTICATED', 'CREDENTIAL_INVALID'],
      wrongKeyLarge: ['UNAUTHENTICATED', 'CREDENTIAL_INVALID'],
      unknownService: ['NOT_FOUND', 'SERVICE_NOT_FOUND'],
      longServiceId: ['INVALID_ARGUMENT', 'INVALID_ARGUMENT'],
      otherConsumer: ['PERMISSION_DENIED', 'CONSUMER_MISMATCH'],
      othersConsumer: ['PERMISSION_DENIED', 'CONSUMER_MISMATCH'],
    }
    for (const [name, [code, reason]] of Object.entries(expected)) {
      expect.soft(at(told, name), name).toMatchObject({
        refusal: { code, errorInfo: { reason, domain: 'tollgate' } },
        next: { answer: { requestId: expect.stringMatching(uuid) } },
      })
    }
  })

  test('gets DEADLINE_EXCEEDED in time; the backend call is aborted and the ledger says so', async () => {
    const told = await python.play('deadline.py')
    expect(at(told, 'slow', 'refusal', 'code')).toBe('DEADLINE_EXCEEDED')
    expect(number(at(told, 'tookMs'))).toBeLessThan(1500)
    expect(has(at(told, 'after'), 'answer')).toBe(true)
    const record = await eventually(async () =>
      (await recordsOf('key')).find((candidate) => candidate.serviceId === facts.slowServiceId),
    )
    expect(record).toMatchObject({
      status: CallStatus.DEADLINE_EXCEEDED,
      errorReason: 'DEADLINE_EXCEEDED',
      consumerId: facts.consumerId,
      cost: { amountNanos: 0n },
    })
    await eventually(() =>
      backendLog('slow-backend.jsonl').some(
        (line) => line.requestId === record.requestId && line.outcome === 'aborted',
      ),
    )
    expect(backendLog('slow-backend.jsonl').filter((line) => line.outcome === 'served')).toEqual([])
  })

  test('gets 200 parallel calls on one channel all answered, each as a call of its own', async () => {
    const told = await python.play('burst.py', 'key', '200')
    const ids = answers(told).map((answer) => string(at(answer, 'requestId')))
    expect(ids).toHaveLength(200)
    expect(new Set(ids).size).toBe(200)
    const records = await eventually(async () => {
      const found = (await recordsOf('key')).filter((record) => ids.includes(record.requestId))
      return found.length >= 200 && found
    })
    expect(records.map((record) => record.requestId).sort()).toEqual([...ids].sort())
  })

  test('may send messages that are too large and keep its connection, with no stream left behind', async () => {
    // Streams are so few that a handful left open would block the connection.
    const narrow = await startTollgate({ command: 'dev', env: { MAX_STREAMS_PER_CONNECTION: '8' } })
    const scenarios = await createScenarios(await demoFacts(narrow))
    onTestFinished(async () => {
      await scenarios.close()
      await narrow.stop()
    })
    const told = await scenarios.play('too_large.py', '20')
    expect(list(at(told, 'refused'))).toHaveLength(20)
    for (const outcome of list(at(told, 'refused'))) {
      expect(outcome).toMatchObject({
        refusal: {
          code: 'RESOURCE_EXHAUSTED',
          errorInfo: { reason: 'MESSAGE_TOO_LARGE', metadata: { limitBytes: '4194304' } },
        },
      })
    }
    expect(at(told, 'inFlight')).toBe('0')
    expect(has(at(told, 'first'), 'answer') && has(at(told, 'after'), 'answer')).toBe(true)
    // Ready once and never left since: every call took the same connection.
    expect(list(at(told, 'states')).join(' ')).toMatch(/^(IDLE )?(CONNECTING )?READY$/)
  })

  describe('that sends 200 calls at once at a burst of 20', () => {
    let told: Json
    let usedBefore: bigint
    let backendBefore: number

    beforeAll(async () => {
      usedBefore = await usedTokens()
      backendBefore = backendLog('backend.jsonl').length
      told = await python.play('burst.py', 'limitedKey', '200')
    })

    test('gets no more than 20 and the refill admitted', () => {
      const refill = Math.ceil((number(at(told, 'tookMs')) / 1000) * 10)
      expect(answers(told).length).toBeGreaterThanOrEqual(20)
      expect(answers(told).length).toBeLessThanOrEqual(20 + refill)
      expect(answers(told).length + refusals(told).length).toBe(200)
      expect(refusals(told).length).toBeGreaterThan(0)
    })

    test('is told by RetryInfo, QuotaFailure, ErrorInfo, message and header, with the same figures', () => {
      for (const refusal of refusals(told)) {
        const metadata = at(refusal, 'errorInfo', 'metadata')
        const retryAfterMs = Number(at(metadata, 'retryAfterMs'))
        const remaining = string(at(metadata, 'remaining'))
        expect(refusal).toMatchObject({
          code: 'RESOURCE_EXHAUSTED',
          errorInfo: {
            reason: 'RATE_LIMITED',
            metadata: { limit: 'requests_per_second', capacity: '20', requested: '1', unit: 'requests' },
          },
          retryInfo: { retryDelayMs: retryAfterMs },
          // Whole seconds, upwards.
          headers: { 'retry-after': '1', 'x-ratelimit-limit': '20', 'x-ratelimit-remaining': remaining },
          quotaFailure: [{ subject: at(metadata, 'subject'), quotaId: 'requests_per_second', quotaValue: 20 }],
        })
        expect(list(at(refusal, 'quotaFailure'))).toHaveLength(1)
        // An empty bucket of 10 a second has the next token within a tenth of a second.
        expect(retryAfterMs).toBeGreaterThan(0)
        expect(retryAfterMs).toBeLessThanOrEqual(100)
        expect(string(at(refusal, 'quotaFailure', 0, 'description'))).toContain(`${remaining} of 20 requests left`)
        expect(string(at(refusal, 'message'))).toContain(`has ${remaining} of 20 requests left`)
        expect(string(at(refusal, 'message'))).toContain(`retry in ${retryAfterMs} ms`)
      }
    })

    test('pays for the admitted calls only: no refused one took quota, reached a backend or left a record', async () => {
      const admitted = answers(told)
      const tokens = admitted.reduce((sum, answer) => sum + BigInt(number(at(answer, 'totalTokens'))), 0n)
      await eventually(async () => (await usedTokens()) === usedBefore + tokens)
      expect(backendLog('backend.jsonl').length - backendBefore).toBe(admitted.length)
      const ids = admitted.map((answer) => string(at(answer, 'requestId')))
      // A later call's record: what the calls before it left is in the ledger by then.
      const last = await eventually(routeLimited)
      const records = await eventually(async () => {
        const found = await recordsOf('limitedKey')
        return found.some((record) => record.requestId === last) && found
      })
      expect(records.map((record) => record.requestId).sort()).toEqual([...ids, last].sort())
    })
  })
})

async function usedTokens(): Promise<bigint> {
  const gate = tollgate.client(ConsumptionService, facts.limitedKey ?? '')
  return (await gate.checkQuota({ serviceId: facts.serviceId ?? '' })).used
}

async function routeLimited(): Promise<string> {
  const gate = tollgate.client(ConsumptionService, facts.limitedKey ?? '')
  return (await gate.routeRequest({ serviceId: facts.serviceId ?? '', payload: chat('the last one') })).requestId
}

async function recordsOf(key: 'key' | 'limitedKey'): Promise<UsageRecord[]> {
  const usage = tollgate.client(UsageService, facts[key] ?? '')
  return (await usage.listUsageRecords({ pageSize: 1000 })).usageRecords
}

function backendLog(name: string): PracticeRecord[] {
  return readPracticeLog(join(tollgate.dataDir, name))
}

function answers(told: Json): Json[] {
  return list(at(told, 'outcomes')).flatMap((outcome) => (has(outcome, 'answer') ? [at(outcome, 'answer')] : []))
}

function refusals(told: Json): Json[] {
  return list(at(told, 'outcomes')).flatMap((outcome) => (has(outcome, 'refusal') ? [at(outcome, 'refusal')] : []))
}

/** Start of the UTC month after a moment's, in Unix seconds. */
function nextMonth(moment: Date): number {
  return Date.UTC(moment.getUTCFullYear(), moment.getUTCMonth() + 1, 1) / 1000
}
