import { describe, expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { type AnalyticsEvent, eventTypes, type QuotaThreshold, toCloudEvent } from './event.ts'
import { createLogPublisher } from './log-publisher.ts'
import { refusalEvent } from './refusal-event.ts'
import { violationEvent } from './violation-event.ts'

const call = {
  organizationId: 'organization',
  consumerId: 'consumer',
  keyId: 'key',
  serviceId: 'service',
  requestId: 'request',
}
const limit = { subject: 'consumer:consumer', limit: 'tokens_per_month', unit: 'tokens', capacity: 100 } as const
const threshold: QuotaThreshold = {
  type: 'quota_threshold',
  ...call,
  ...limit,
  used: 81,
  threshold: 80,
  periodEndMs: Date.UTC(2026, 11, 1),
}
const refused = { ...call, ...limit, tier: 'basic', remaining: 3, resetAtMs: Date.UTC(2026, 11, 1) } as const
const violated = { policyId: 'p', policyName: 'no-cards', policyVersion: 2, severity: 'critical', outcome: 'denied' }
const events: readonly AnalyticsEvent[] = [
  threshold,
  { type: 'rate_limited', ...refused, retryAfterMs: 250 },
  { type: 'quota_exceeded', ...refused, retryAfterMs: undefined },
  violationEvent({ ...call, ...violated }),
]

test('an event is a CloudEvent whose data says all of it', () => {
  const timeMs = Date.UTC(2026, 10, 21, 4, 5, 6, 7)
  expect(toCloudEvent({ id: 'id', timeMs, event: threshold }, '/tollgate/a')).toEqual({
    specversion: '1.0',
    id: 'id',
    source: '/tollgate/a',
    type: 'marketplace.consumption.quota_threshold',
    time: '2026-11-21T04:05:06.007Z',
    subject: 'consumer:consumer',
    partitionkey: 'organization',
    datacontenttype: 'application/json',
    data: { ...call, ...limit, used: 81, threshold: 80, periodEnd: '2026-12-01T00:00:00.000Z' },
  })
  const data = events.slice(1).map((event) => toCloudEvent({ id: 'id', timeMs, event }, '').data)
  const both = { ...call, ...limit, tier: 'basic', remaining: 3, resetAt: '2026-12-01T00:00:00.000Z' }
  expect(data).toEqual([{ ...both, retryAfterMs: 250 }, both, { ...call, subject: 'policy:p', ...violated }])
})

test('what an object carries beside the event does not go out', () => {
  for (const event of events) {
    const laden = { ...event, payload: 'a secret prompt', metadata: { prompt: 'a secret prompt' } }
    expect(JSON.stringify(toCloudEvent({ id: 'id', timeMs: 0, event: laden }, ''))).not.toContain('secret')
  }
})

test('every type has its name in the list', () => {
  expect(events.map(({ type }) => type).sort()).toEqual([...eventTypes].sort())
})

describe('a refusal', () => {
  const violation = { ...limit, remaining: 3, resetAtMs: 5 }
  const refusal = (error: TollgateError) => refusalEvent({ ...call, tier: 'basic', error })

  test('by a bucket or a quota is an event with the figures of the error', () => {
    const limits = [violation]
    const both = { ...call, ...violation, tier: 'basic' }
    expect(refusal(new TollgateError('RATE_LIMITED', 'x', { limits, retryAfterMs: 7 }))).toEqual({
      type: 'rate_limited',
      ...both,
      retryAfterMs: 7,
    })
    expect(refusal(new TollgateError('QUOTA_EXCEEDED', 'x', { limits }))).toEqual({
      type: 'quota_exceeded',
      ...both,
      retryAfterMs: undefined,
    })
  })

  test('by anything else is none', () => {
    expect(refusal(new TollgateError('POLICY_DENIED', 'x'))).toBeUndefined()
    expect(refusal(new TollgateError('LIMITS_UNAVAILABLE', 'x', { limits: [violation] }))).toBeUndefined()
  })
})

test('without Kafka a threshold is one log line and the other events are none', () => {
  const lines: object[] = []
  const publisher = createLogPublisher({ warn: (fields, text) => lines.push({ ...fields, text }) })
  for (const event of events) publisher.publish(event)
  expect(lines).toEqual([
    expect.objectContaining({ consumerId: 'consumer', threshold: 80, used: 81, text: 'a quota passed a threshold' }),
  ])
  expect(publisher.state()).toBeUndefined()
})
