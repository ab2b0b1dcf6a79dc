import { expect, test } from 'vitest'
import { TollgateError } from '../errors.ts'
import { createLogger } from './log.ts'

function capture(level = 'info') {
  const lines: string[] = []
  const log = createLogger({ level, destination: { write: (line: string) => lines.push(line) } })
  const last = (): unknown => JSON.parse(lines.at(-1) ?? 'null')
  return { log, lines, last }
}

test('a line is JSON with level, time and message', () => {
  const { log, last } = capture()
  log.warn({ requestId: 'r' }, 'slow')
  expect(last()).toEqual({ level: 'warn', time: expect.stringMatching(/^\d{4}-/), requestId: 'r', message: 'slow' })
})

test('a line holds nothing of the lines before it', () => {
  const { log, last } = capture()
  log.info({ requestId: 'r' }, 'first')
  log.info('second')
  expect(last()).not.toHaveProperty('requestId')
})

test('lines below the level are not written', () => {
  const { log, lines } = capture('error')
  log.warn('no')
  log.info('no')
  expect(lines).toEqual([])
})

test('credentials and payloads are redacted under their usual names', () => {
  const { log, lines } = capture()
  const secrets = {
    authorization: 'Bearer s3cret',
    'x-api-key': 's3cret',
    key: 's3cret',
    payload: 's3cret',
    password: 's3cret',
  }
  log.info({ ...secrets, headers: secrets, request: secrets }, 'call')
  expect(lines.join()).not.toContain('s3cret')
  expect(lines.join()).toContain('[redacted]')
})

test('an error shows its reason, code and causes, and not what drivers attach', () => {
  const { log, lines, last } = capture()
  const cause = Object.assign(new Error('connection lost'), {
    code: 'ECONNRESET',
    query: 's3cret',
    parameters: ['s3cret'],
  })
  log.error({ err: new TollgateError('STORAGE_UNAVAILABLE', 'Storage is away.', { cause }) }, 'failed')
  expect(last()).toMatchObject({
    err: {
      type: 'TollgateError',
      message: 'Storage is away.',
      reason: 'STORAGE_UNAVAILABLE',
      cause: { type: 'Error', message: 'connection lost', code: 'ECONNRESET' },
    },
  })
  expect(lines.join()).not.toContain('s3cret')
})
