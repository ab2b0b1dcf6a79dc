import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Reason, reasons, TollgateError } from '../../errors.ts'
import { errorTable, toOpenAiError } from './error-table.ts'

const allReasons = Object.keys(reasons).filter((name): name is Reason => Object.hasOwn(reasons, name))

/** Where OpenAI has another status for it than the reason itself. */
const elsewhere: Partial<Record<Reason, number>> = {
  MESSAGE_TOO_LARGE: 413,
  SERVICE_INACTIVE: 404,
  QUOTA_EXCEEDED: 429,
}

describe.each(allReasons)('%s', (reason) => {
  const error = new TollgateError(reason, 'what callers may read', { retryAfterMs: 1000, cause: new Error('inside') })
  const told = toOpenAiError(error)

  test("has OpenAI's shape, with a code that says what it was", () => {
    const { type, code } = errorTable[reason]
    expect(told.body.error).toMatchObject({ message: 'what callers may read', type, code })
    expect(Object.keys(told.body.error)).toEqual(['message', 'type', 'param', 'code'])
    expect(JSON.stringify(told.body)).not.toContain('inside')
  })

  test('has the status of the reason, unless OpenAI has another for it', () => {
    expect(told.status).toBe(elsewhere[reason] ?? reasons[reason].http)
  })

  test('is sent again by libraries only when that can help', () => {
    expect(told.shouldRetry).toBe(reasons[reason].retryable)
  })

  test("is the caller's 401 only when the caller's own credential is at fault", () => {
    const isOfCredentials = /^(CREDENTIAL|TOKEN|CERTIFICATE)_/.test(reason) && reason !== 'TOKEN_CONSUMER'
    expect(told.status === 401).toBe(isOfCredentials && !reasons[reason].retryable)
  })
})

test('the table is printed in docs/openai-api.md, row by row', () => {
  const docs = readFileSync(new URL('../../../docs/openai-api.md', import.meta.url), 'utf8')
  const printed = docs.split('\n').filter((line) => /^\| `[A-Z_]+` \|/.test(line))
  const rows = allReasons.map((reason) => {
    const { status, type, code } = errorTable[reason]
    return `| \`${reason}\` | ${status} | \`${type}\` | \`${code}\` | ${reasons[reason].retryable ? 'yes' : 'no'} |`
  })
  expect(printed.sort()).toEqual(rows.sort())
})

describe('a retry', () => {
  const shouldRetry = (reason: Reason, retryAfterMs?: number) =>
    toOpenAiError(new TollgateError(reason, '', retryAfterMs === undefined ? {} : { retryAfterMs })).shouldRetry

  test('is not asked for by a rate limit that no wait helps', () => {
    expect(shouldRetry('RATE_LIMITED', 100)).toBe(true)
    expect(shouldRetry('RATE_LIMITED')).toBe(false)
  })

  test('is not asked for when the wait is longer than libraries wait', () => {
    expect(shouldRetry('BACKEND_FAILED', 60_000)).toBe(true)
    expect(shouldRetry('BACKEND_FAILED', 60_001)).toBe(false)
    expect(shouldRetry('BACKEND_FAILED')).toBe(true)
  })
})

describe('what a backend refused', () => {
  const rejected = (metadata: Record<string, string>) => {
    const { status, body } = toOpenAiError(new TollgateError('BACKEND_REJECTED', 'rejected', { metadata }))
    return [status, body.error.code]
  }

  test('is a context that is too long', () => {
    expect(rejected({ backendError: 'context_length', backendStatus: '400' })).toEqual([400, 'context_length_exceeded'])
  })

  test('is content that its filter does not let pass', () => {
    expect(rejected({ backendError: 'content_filter' })).toEqual([400, 'content_filter'])
  })

  test.each(['400', '413', '422'])('is the request itself: status %s', (backendStatus) => {
    expect(rejected({ backendError: 'rejected', backendStatus })).toEqual([400, 'backend_rejected'])
  })

  test.each(['402', '404', '405', ''])('is no fault of the caller otherwise: status %s', (backendStatus) => {
    expect(rejected({ backendError: 'rejected', backendStatus })).toEqual([502, 'backend_rejected'])
  })
})

describe('param', () => {
  const paramOf = (reason: Reason, init: ConstructorParameters<typeof TollgateError>[2]) =>
    toOpenAiError(new TollgateError(reason, '', init)).body.error.param

  test('is the path within the body', () => {
    const fields = [{ field: 'payload.messages[2].content', description: '' }]
    expect(paramOf('INVALID_ARGUMENT', { fields })).toBe('messages[2].content')
    expect(paramOf('INVALID_ARGUMENT', { fields, metadata: { param: 'n' } })).toBe('n')
  })

  test('is null for the body as a whole', () => {
    expect(paramOf('INVALID_ARGUMENT', { fields: [{ field: 'payload', description: '' }] })).toBeNull()
    expect(paramOf('INVALID_ARGUMENT', { metadata: { param: '' } })).toBeNull()
    expect(paramOf('INVALID_ARGUMENT', {})).toBeNull()
  })

  test('is the model that does not exist', () => {
    expect(paramOf('SERVICE_NOT_FOUND', { metadata: { serviceId: 'x' } })).toBe('model')
  })
})

test('a long message is cut', () => {
  const { message } = toOpenAiError(new TollgateError('SERVICE_NOT_FOUND', 'é😀'.repeat(5000))).body.error
  expect(encodeURIComponent(message).length).toBeLessThanOrEqual(1024)
})
