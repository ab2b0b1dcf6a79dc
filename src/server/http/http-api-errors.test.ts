import { once } from 'node:events'
import { connect } from 'node:http2'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Denial } from '../../audit/denial.ts'
import { keys, startFixture } from '../fixture.ts'
import { json, startThings, type Things } from './fixture-things.ts'

let things: Things
beforeAll(async () => {
  things = await startThings()
})
afterAll(() => things.close())

const own = { authorization: `Bearer ${keys.own}` }

describe('an error', () => {
  test('has the form of google.rpc.Status with its details, and the headers of a refusal', async () => {
    const answer = await things.ask('/things/v1/fail/limited')
    expect(answer.status).toBe(429)
    expect(answer.headers.get('retry-after')).toBe('2')
    expect(answer.headers.get('x-ratelimit-limit')).toBe('20')
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(await answer.json()).toEqual({
      error: {
        code: 429,
        message: 'too many requests',
        status: 'RESOURCE_EXHAUSTED',
        details: [
          {
            '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
            reason: 'RATE_LIMITED',
            domain: 'tollgate',
            metadata: { limit: 'requests_per_second' },
          },
          { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.500s' },
          {
            '@type': 'type.googleapis.com/google.rpc.QuotaFailure',
            violations: [
              {
                subject: 'consumer:c1',
                description: 'requests_per_second: 0 of 20 requests left',
                quotaId: 'requests_per_second',
                quotaValue: '20',
              },
            ],
          },
        ],
      },
    })
  })

  test.each<[what: string, path: string, init: RequestInit, status: number, reason: string]>([
    ['no credential', '/v1/quota/s', {}, 401, 'CREDENTIAL_MISSING'],
    ['a wrong credential', '/v1/quota/s', { headers: { 'x-api-key': 'tg_x' } }, 401, 'CREDENTIAL_INVALID'],
    ['no permission', '/v1/quota/s', { headers: { 'x-api-key': keys.noRoles } }, 403, 'PERMISSION_MISSING'],
    ["another's consumer", '/v1/quota/s?consumer_id=c2', { headers: own }, 403, 'CONSUMER_MISMATCH'],
    ['a broken rule', `/v1/quota/${'x'.repeat(180)}`, { headers: own }, 400, 'INVALID_ARGUMENT'],
    [
      'a malformed timeout',
      '/v1/quota/s',
      { headers: { ...own, 'x-request-timeout-ms': 'x' } },
      400,
      'INVALID_ARGUMENT',
    ],
    ['an RPC without implementation', '/things/v1/missing', {}, 404, 'RPC_NOT_FOUND'],
    ['a crash', '/things/v1/fail/crash', {}, 500, 'INTERNAL'],
    ['a path that is not there', '/api/nope', {}, 404, 'RPC_NOT_FOUND'],
    ['a path with an empty segment', '/api//v1/keys', {}, 404, 'RPC_NOT_FOUND'],
    ['another type', '/things/v1/things/7', { method: 'PUT', body: 'a=b' }, 415, 'CONTENT_TYPE_UNSUPPORTED'],
    [
      'another compression',
      '/things/v1/things/7',
      { method: 'PUT', body: '{}', headers: { ...json, 'content-encoding': 'br' } },
      415,
      'CONTENT_TYPE_UNSUPPORTED',
    ],
    [
      'gzip that is none',
      '/things/v1/things/7',
      { method: 'PUT', body: '{}', headers: { ...json, 'content-encoding': 'gzip' } },
      400,
      'INVALID_ARGUMENT',
    ],
    [
      'a body of 8 MiB',
      '/things/v1/things/7',
      { method: 'PUT', body: 'x'.repeat(8 * 1024 * 1024), headers: json },
      413,
      'MESSAGE_TOO_LARGE',
    ],
    [
      'a body of 8 MiB in 8 KiB of gzip',
      '/things/v1/things/7',
      {
        method: 'PUT',
        body: gzipSync('x'.repeat(8 * 1024 * 1024)),
        headers: { ...json, 'content-encoding': 'gzip' },
      },
      413,
      'MESSAGE_TOO_LARGE',
    ],
    ['a body where none belongs', '/things/v1/things/7', { method: 'DELETE', body: '{}' }, 400, 'INVALID_ARGUMENT'],
  ])('of %s is told', async (_, path, init, status, reason) => {
    const answer = await things.ask(path, init)
    expect(answer.status).toBe(status)
    expect(answer.headers.get('www-authenticate')).toBe(status === 401 ? 'Bearer' : null)
    const told = await answer.text()
    expect(JSON.parse(told)).toMatchObject({
      error: { code: status, details: expect.arrayContaining([expect.objectContaining({ reason })]) },
    })
    expect(told).not.toContain('hunter2')
  })

  test('of another type is told, too, when the body does not announce its length', async () => {
    const session = connect(things.server.address)
    const stream = session.request({ ':path': '/things/v1/things/7', ':method': 'PUT', 'content-type': 'text/plain' })
    stream.end('{}')
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(415)
    stream.resume()
    session.close()
  })

  test('names the rule that a field broke', async () => {
    const answer = await things.ask(`/v1/quota/${'x'.repeat(180)}`, { headers: own })
    const { error } = JSON.parse(await answer.text())
    expect(error.details[1]).toEqual({
      '@type': 'type.googleapis.com/google.rpc.BadRequest',
      fieldViolations: [
        { field: 'service_id', description: 'must have at most 179 characters', reason: 'string.max_len' },
      ],
    })
  })

  test('of another method names those that the path takes', async () => {
    const answer = await things.ask('/things/v1/things/7', { method: 'POST' })
    expect(answer.status).toBe(405)
    expect(answer.headers.get('allow')).toBe('DELETE, GET, HEAD, PATCH, PUT')
    expect(await answer.json()).toMatchObject({ error: { code: 405, details: [{ reason: 'METHOD_NOT_ALLOWED' }] } })
    expect((await things.ask('/things/v1/things/7', { method: 'OPTIONS' })).status).toBe(405)
    expect((await things.ask('/things/v1/watch/x', { method: 'HEAD' })).status).toBe(405)
  })

  test('of the deadline comes at the deadline, even if the implementation does not end', async () => {
    const answer = await things.ask('/things/v1/fail/deaf', { headers: { 'x-request-timeout-ms': '50' } })
    things.goOn()
    expect(answer.status).toBe(504)
    expect(await answer.json()).toMatchObject({ error: { details: [{ reason: 'DEADLINE_EXCEEDED' }] } })
  })
})

test('a denial is kept before it is answered, as on the other wires', async () => {
  const kept: string[] = []
  const record = async ({ action, reason }: Denial): Promise<void> => void kept.push(`${action} ${reason}`)
  const other = await startFixture({ denials: { record } })
  try {
    const answer = await fetch(`${other.server.address}/v1/quota/s`, { headers: { 'x-api-key': keys.noRoles } })
    expect(answer.status).toBe(403)
    expect(kept).toEqual(['marketplace.v1.ConsumptionService/GetQuota PERMISSION_MISSING permission=quota.read'])
  } finally {
    await other.close()
  }
})
