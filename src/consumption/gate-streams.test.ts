import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { through } from '../../test/support/through-limits.ts'
import { type Reason, TollgateError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Limits } from '../limits/limits.ts'
import type { GateStreamItem } from './gate.ts'
import { type GateStreams, hear, prices, serviceId, startGateStreams, tokensIn } from './gate-stream-support.ts'

let streams: GateStreams
beforeAll(async () => {
  streams = await startGateStreams()
})
beforeEach(() => streams.begin())
afterEach(() => streams.end())
afterAll(() => streams?.stop())

describe('a whole stream', () => {
  test('has its usage and its charge at its end, and they are what the record says', async () => {
    const { requestId, text, end, error } = await hear(streams.ask('out=20,in=7'))
    expect(error).toBeUndefined()
    expect(tokensIn(text)).toBe(20)
    expect(text).not.toContain('[DONE]')
    expect(Buffer.concat(end?.tail ?? []).toString()).toBe('data: [DONE]\n\n')
    const event = await streams.settledAs({ status: 'succeeded', usageSource: 'provider', attempt: 1, endpointId: '0' })
    expect(event.tokens).toMatchObject({ input: 7, output: 20 })
    expect(end).toMatchObject({ event, isReplayed: false, finishReason: 'stop', charge: { nanos: event.costNanos } })
    expect(requestId).toBe(event.requestId)
    expect(event.firstTokenMs).toBeGreaterThan(0)
    expect(event.firstTokenMs).toBeLessThanOrEqual(event.durationMs)
  })

  test('is recorded before its tail leaves', async () => {
    const order: string[] = []
    const settle: Limits['settle'] = async (settlement) => {
      const settled = await streams.limits.settle(settlement)
      order.push('recorded')
      return settled
    }
    for await (const { kind } of streams.ask('out=20', { limits: { ...through(streams.limits), settle } }))
      order.push(kind)
    expect(order.slice(-2)).toEqual(['recorded', 'end'])
    expect(order.filter((step) => step === 'recorded')).toHaveLength(1)
  })

  test('that reports no usage is charged by an estimate', async () => {
    const { end } = await hear(streams.ask('missing-usage,out=20'))
    expect(end?.event).toMatchObject({ usageSource: 'estimated', tokens: { output: 20 } })
    await streams.settledAs({ status: 'succeeded', usageSource: 'estimated' })
  })
})

describe('a stream that breaks off throws after its pieces, and is charged what was delivered', () => {
  test.each<[string, Reason]>([
    ['cut=5', 'BACKEND_FAILED'],
    ['end=5', 'BACKEND_FAILED'],
    ['malformed=5', 'BACKEND_ANSWER_INVALID'],
    ['stall=5', 'BACKEND_TIMEOUT'],
  ])('%s', async (fault, reason) => {
    const { text, end, error } = await hear(streams.ask(`${fault},out=20`))
    expect(end).toBeUndefined()
    expect(error).toMatchObject({ reason })
    expect(tokensIn(text)).toBe(5)
    const event = await streams.settledAs({ status: 'failed', errorReason: reason, usageSource: 'partial', attempt: 1 })
    expect(event.tokens.output).toBe(5)
    expect(event.tokens.input).toBeGreaterThan(0)
  })
})

describe('a failure before the first output', () => {
  test.each<[string, Reason]>([
    ['status=500', 'BACKEND_FAILED'],
    ['reset', 'BACKEND_FAILED'],
    ['cut=0', 'BACKEND_FAILED'],
    ['end=0', 'BACKEND_FAILED'],
    ['empty', 'BACKEND_ANSWER_INVALID'],
    ['html', 'BACKEND_ANSWER_INVALID'],
  ])('%s goes unnoticed, and leaves a record that counts nothing', async (fault, reason) => {
    streams.practice.backends[0]?.failNext(fault)
    const { requestId, end, error } = await hear(streams.ask(''))
    expect(error).toBeUndefined()
    const event = await streams.settledAs({ status: 'succeeded', attempt: 2, endpointId: '1', usageSource: 'provider' })
    expect(end?.event).toEqual(event)
    const inVain = { attempt: 1, endpointId: '0', status: 'failed', errorReason: reason, costNanos: 0 }
    expect((await streams.recorded()).filter(({ requests }) => requests === 0)).toMatchObject([
      { requestId, ...inVain },
    ])
  })

  test('at every attempt is thrown before anything, and charged nothing', async () => {
    const { requestId, text, error } = await hear(streams.ask('status=500'))
    expect([requestId, text]).toEqual(['', ''])
    expect(error).toMatchObject({ reason: 'BACKEND_FAILED', metadata: { attempts: '3' } })
    await streams.settledAs({ status: 'failed', usageSource: 'none', attempt: 3, costNanos: 0 })
  })
})

describe('a fallback', () => {
  const backupId = newId()

  /** A stream of a service whose only endpoint has the fault, with another service to take over. */
  function askWithBackup(fault: string): AsyncGenerator<GateStreamItem, void> {
    const [failing, sound] = streams.practice.service().endpoints
    if (failing === undefined || sound === undefined) throw new Error('there are two backends')
    const endpoints = [{ ...failing, url: `${failing.url}?fault=${encodeURIComponent(fault)}` }]
    const backup = { ...streams.practice.service(), id: backupId, name: 'backup', endpoints: [sound], prices }
    const fallbacks = [{ serviceId: backup.name, on: ['error' as const] }]
    return streams.ask('', { service: { endpoints, fallbacks }, others: [backup] })
  }

  test('takes over a stream that has no output yet, and both services have their record', async () => {
    const taken = await hear(askWithBackup('status=500'))
    expect(taken.end?.event).toMatchObject({ serviceId: backupId, status: 'succeeded', endpointId: '1' })
    const counting = (await streams.recorded()).filter(({ requests }) => requests === 1)
    expect(counting).toMatchObject([
      { serviceId, status: 'failed', errorReason: 'BACKEND_FAILED', costNanos: 0 },
      { serviceId: backupId, status: 'succeeded', requestId: taken.requestId },
    ])
  })

  test('never takes over a stream that has begun', async () => {
    const { text, error } = await hear(askWithBackup('cut=3'))
    expect(error).toMatchObject({ reason: 'BACKEND_FAILED' })
    expect(tokensIn(text)).toBe(3)
    await streams.settledAs({ serviceId, status: 'failed', usageSource: 'partial' })
    expect(streams.practice.attempted).toEqual(['0 cut'])
  })
})

describe('a record that cannot be made', () => {
  /** Limits that are away for the first settlements: longer than callers wait, and some more. */
  function away(failures: number): Limits {
    let left = failures
    const settle: Limits['settle'] = async (settlement) => {
      left -= 1
      if (left >= 0) throw new TollgateError('LIMITS_UNAVAILABLE', 'away')
      return streams.limits.settle(settlement)
    }
    return { ...through(streams.limits), settle }
  }

  test('keeps the tail from the caller, who gets an error, and is made later', async () => {
    const { text, end, error } = await hear(streams.ask('out=20,in=7', { limits: away(6) }))
    expect(tokensIn(text)).toBe(20)
    expect(end).toBeUndefined()
    expect(error).toMatchObject({ reason: 'LIMITS_UNAVAILABLE' })
    expect(await streams.recorded()).toEqual([])
    await eventually(async () => (await streams.used()).calls === 0)
    const event = await streams.settledAs({ status: 'succeeded', usageSource: 'provider' })
    expect(event.tokens).toMatchObject({ input: 7, output: 20 })
  })

  test('of a stream that broke off hides nothing of what broke it', async () => {
    const { error } = await hear(streams.ask('cut=5,out=20', { limits: away(6) }))
    expect(error).toMatchObject({ reason: 'BACKEND_FAILED' })
    await eventually(async () => (await streams.used()).calls === 0)
    await streams.settledAs({ status: 'failed', usageSource: 'partial' })
  })
})
