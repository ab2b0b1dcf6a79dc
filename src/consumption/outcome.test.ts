import { expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { noTokens } from '../metering/usage-event.ts'
import type { StreamEnd, StreamReport } from '../providers/provider.ts'
import type { PriceModel } from '../registry/records.ts'
import { streamed } from './outcome.ts'

const rates = {
  inputNanosPerMillion: 1e6,
  outputNanosPerMillion: 2e6,
  cachedInputNanosPerMillion: 0,
  cacheWriteInputNanosPerMillion: 0,
  reasoningOutputNanosPerMillion: 0,
}
const perToken: PriceModel = { kind: 'per_token', ...rates, tiers: [] }
const perRequest: PriceModel = { kind: 'per_request', requestNanos: 500 }
const whole: StreamEnd = { verdict: 'complete', tail: new Uint8Array() }
const cut: StreamEnd = { verdict: 'cut', error: new TollgateError('BACKEND_FAILED', 'cut') }
const left: StreamEnd = { verdict: 'cut', error: new TollgateError('CANCELLED', 'gone') }
const late: StreamEnd = { verdict: 'cut', error: new TollgateError('DEADLINE_EXCEEDED', 'late') }

test.for([
  ['whole', perToken, whole, 'provider', 10, 'succeeded'],
  ['broken by the backend', perToken, cut, 'partial', 10, 'failed'],
  ['left by its caller', perToken, left, 'partial', 10, 'cancelled'],
  ['of which nothing came', perToken, cut, 'none', 0, 'failed'],
  ['whole', perRequest, whole, 'provider', 500, 'succeeded'],
  ['broken by the backend', perRequest, cut, 'partial', 0, 'failed'],
  ['left by its caller', perRequest, left, 'partial', 500, 'cancelled'],
  ['ended by its deadline', perRequest, late, 'partial', 500, 'deadline_exceeded'],
] as const)('a stream %s is charged by its price: %o', ([, model, end, usageSource, nanos, status]) => {
  const price = { version: 'v1', currency: 'USD', effectiveFromMs: 0, model }
  const report: StreamReport = {
    tokens: { ...noTokens, input: 2, output: 4 },
    usageSource,
    model: '',
    finishReason: '',
    textBytes: 0,
    reasoningBytes: 0,
  }
  const outcome = streamed(price, [], report, end, undefined, 0)
  expect(outcome).toMatchObject({ status, charge: { nanos, currency: 'USD', priceVersion: 'v1' } })
})
