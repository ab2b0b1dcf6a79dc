import { Code, ConnectError } from '@connectrpc/connect'
import { expect, test } from 'vitest'
import { type Reason, reasons, TollgateError } from '../errors.ts'
import {
  boundedText,
  messageMaxBytes,
  reasonOfCode,
  refusalHeaders,
  toConnectError,
  toTollgateError,
} from './connect-error.ts'

const reasonNames = Object.keys(reasons).filter((name): name is Reason => name in reasons)

test.each(reasonNames)('%s becomes its status with ErrorInfo', (reason) => {
  const error = toConnectError(new TollgateError(reason, 'text', { metadata: { key: 'value' } }))
  expect(error.code).toBe(reasons[reason].grpc)
  expect(Code[error.code], 'a code that Connect knows').toBeDefined()
  expect(error.rawMessage).toBe('text')
  expect(error.details).toMatchObject([
    { desc: { typeName: 'google.rpc.ErrorInfo' }, value: { reason, domain: 'tollgate', metadata: { key: 'value' } } },
  ])
})

test('every status that the router makes by itself has a reason of the same code', () => {
  const own = [Code.InvalidArgument, Code.DeadlineExceeded, Code.ResourceExhausted, Code.Unimplemented, Code.Internal]
  for (const code of own) expect(reasons[reasonOfCode(code)].grpc).toBe(code)
})

test('what is not meant for callers becomes INTERNAL, and keeps its cause for the log', () => {
  const cause = new Error('secret')
  const error = toTollgateError(cause)
  expect([error.reason, error.message, error.cause]).toEqual(['INTERNAL', 'internal error', cause])
  expect(toTollgateError('a string').message).toBe('internal error')
  expect(toTollgateError(new ConnectError('too deep', Code.InvalidArgument)).reason).toBe('INVALID_ARGUMENT')
})

test.each(['x'.repeat(100_000), '😀'.repeat(100_000), `a\ud800${'é'.repeat(5000)}`, 'short', ''])(
  'a text fits its bound when percent-encoded, and is well-formed (case %#)',
  (text) => {
    const bounded = boundedText(text, messageMaxBytes)
    expect(encodeURIComponent(bounded).length).toBeLessThanOrEqual(messageMaxBytes)
    expect(bounded.isWellFormed()).toBe(true)
    if (text.length < 100) expect(bounded).toBe(text)
  },
)

test('a thousand broken fields stay below what trailers may hold', () => {
  const fields = Array.from({ length: 1000 }, (_, index) => ({
    field: `metadata["${index}"]`,
    description: 'too long',
  }))
  const error = toConnectError(new TollgateError('INVALID_ARGUMENT', 'many', { fields }))
  expect(JSON.stringify(error.details[1]?.value).length).toBeLessThan(8192)
})

test('headers of a refusal are rounded up, so that a caller does not come back too early', () => {
  const error = new TollgateError('RATE_LIMITED', 'slow down', {
    retryAfterMs: 1001,
    limits: [{ subject: 'c', limit: 'l', capacity: 20, remaining: 0, unit: 'requests', resetAtMs: 10_500 }],
  })
  expect(refusalHeaders(error, 10_000)).toEqual([
    ['retry-after', '2'],
    ['x-ratelimit-limit', '20'],
    ['x-ratelimit-remaining', '0'],
    ['x-ratelimit-reset', '1'],
  ])
})
