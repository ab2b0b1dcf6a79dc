import { request as httpRequest } from 'node:http'
import { connect, constants } from 'node:http2'
import { Code, ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from '../../gen/google/rpc/error_details_pb.ts'
import { as, clientOf, type Fixture, keys, startFixture, until, wireNames } from './fixture.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
})

const large = new Uint8Array(8 * 1024 * 1024)

describe.each(wireNames)('%s', (wire) => {
  const refusal = async (call: Promise<unknown>): Promise<ConnectError> =>
    ConnectError.from(
      await call.then(
        () => new Error('the call was not refused'),
        (error: unknown) => error,
      ),
    )
  const reasonOf = (error: ConnectError) => error.findDetails(ErrorInfoSchema)[0]?.reason

  test('a wrong key with a body of 8 MiB sees UNAUTHENTICATED', async () => {
    const before = fixture.calls.length
    const call = clientOf(fixture, wire).routeRequest({ serviceId: 'echo', payload: large }, as('tg_wrong'))
    const error = await refusal(call)
    expect(error.code).toBe(Code.Unauthenticated)
    expect(reasonOf(error)).toBe('CREDENTIAL_INVALID')
    expect(fixture.calls.length).toBe(before)
  })

  test('a wrong key with a small body sees UNAUTHENTICATED, again and again on one connection', async () => {
    const client = clientOf(fixture, wire)
    for (let round = 0; round < 20; round++) {
      const error = await refusal(client.checkQuota({ serviceId: 's' }, as('tg_wrong')))
      expect(error.code).toBe(Code.Unauthenticated)
      await client.checkQuota({ serviceId: 's' }, as(keys.own))
    }
  })

  test('no credential sees CREDENTIAL_MISSING', async () => {
    expect(reasonOf(await refusal(clientOf(fixture, wire).checkQuota({ serviceId: 's' })))).toBe('CREDENTIAL_MISSING')
  })

  test('a message of 8 MiB sees RESOURCE_EXHAUSTED with the limit and its setting, and the connection works on', async () => {
    const client = clientOf(fixture, wire)
    const error = await refusal(client.routeRequest({ serviceId: 'echo', payload: large }, as(keys.own)))
    expect(error.code).toBe(Code.ResourceExhausted)
    expect(reasonOf(error)).toBe('MESSAGE_TOO_LARGE')
    expect(error.rawMessage).toContain('4194304 bytes')
    expect(error.rawMessage).toContain('MAX_MESSAGE_BYTES')
    await client.checkQuota({ serviceId: 's' }, as(keys.own))
    await until(() => fixture.server.activeCalls() === 0)
  })

  test('a role without the permission sees PERMISSION_MISSING with its name', async () => {
    const error = await refusal(clientOf(fixture, wire).checkQuota({ serviceId: 's' }, as(keys.noRoles)))
    expect(error.code).toBe(Code.PermissionDenied)
    expect(error.findDetails(ErrorInfoSchema)[0]?.metadata.permission).toBe('quota.read')
  })

  test("another consumer's id sees CONSUMER_MISMATCH, unless the caller may act for any", async () => {
    const request = { serviceId: 's', consumerId: '018f0000-0000-7000-8000-00000000ffff' }
    const error = await refusal(clientOf(fixture, wire).checkQuota(request, as(keys.own)))
    expect(error.code).toBe(Code.PermissionDenied)
    expect(reasonOf(error)).toBe('CONSUMER_MISMATCH')
    await clientOf(fixture, wire).checkQuota(request, as(keys.admin))
  })

  test('every broken rule is named at once', async () => {
    const request = { serviceId: '', metadata: { a: 'x'.repeat(300) } }
    const error = await refusal(clientOf(fixture, wire).routeRequest(request, as(keys.own)))
    expect(error.code).toBe(Code.InvalidArgument)
    const fields = error.findDetails(BadRequestSchema)[0]?.fieldViolations.map(({ field }) => field)
    expect(fields).toEqual(['service_id', 'metadata["a"]'])
  })

  test('a limit shows the same figures in the details and the headers', async () => {
    const error = await refusal(clientOf(fixture, wire).routeRequest({ serviceId: 'limited' }, as(keys.own)))
    expect(error.code).toBe(Code.ResourceExhausted)
    expect(error.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({ seconds: 1n, nanos: 500_000_000 })
    expect(error.findDetails(QuotaFailureSchema)[0]?.violations[0]).toMatchObject({
      subject: 'consumer:c1',
      quotaId: 'requests_per_second',
      quotaValue: 20n,
    })
    expect(error.metadata.get('retry-after')).toBe('2')
    expect(error.metadata.get('x-ratelimit-limit')).toBe('20')
    expect(error.metadata.get('x-ratelimit-remaining')).toBe('0')
  })

  test('a long text of foreign letters arrives shortened, with its status', async () => {
    const error = await refusal(clientOf(fixture, wire).routeRequest({ serviceId: 'unknown' }, as(keys.own)))
    expect(error.code).toBe(Code.NotFound)
    expect(error.rawMessage).toMatch(/^no service "unknown é😀.*…$/u)
    expect(encodeURIComponent(error.rawMessage).length).toBeLessThanOrEqual(1024)
  })

  test('an unexpected failure says nothing of the inside, and the log does', async () => {
    const error = await refusal(clientOf(fixture, wire).routeRequest({ serviceId: 'crash' }, as(keys.own)))
    expect(error.code).toBe(Code.Internal)
    expect(error.rawMessage).toBe('internal error')
    await until(() => fixture.lines.some((line) => line.includes('hunter2')))
  })

  test('the deadline aborts the signal of an implementation that ignores it', async () => {
    const before = fixture.ended.length
    const options = { ...as(keys.own), timeoutMs: 100 }
    const error = await refusal(clientOf(fixture, wire).routeRequest({ serviceId: 'deaf' }, options))
    expect(error.code).toBe(Code.DeadlineExceeded)
    await until(() => fixture.ended.length > before)
    // The caller's own timer and the server's race: both ends read the same.
    expect(fixture.ended.at(-1)?.reason).toBe('DEADLINE_EXCEEDED')
    expect(fixture.calls.at(-1)?.signal.aborted).toBe(true)
    expect(fixture.server.activeCalls()).toBe(1)
    fixture.release()
    await until(() => fixture.server.activeCalls() === 0)
  })

  test('a caller that goes away aborts the signal with CANCELLED', async () => {
    const leave = new AbortController()
    const before = fixture.calls.length
    const call = refusal(
      clientOf(fixture, wire).routeRequest(
        { serviceId: 'held' },
        { ...as(keys.own), signal: leave.signal, timeoutMs: 20_000 },
      ),
    )
    await until(() => fixture.calls.length > before)
    leave.abort()
    expect((await call).code).toBe(Code.Canceled)
    await until(() => fixture.calls.at(-1)?.signal.aborted === true)
    expect(fixture.calls.at(-1)?.signal.reason).toMatchObject({ reason: 'CANCELLED' })
    fixture.release()
  })
})

test('the server, too, answers DEADLINE_EXCEEDED, when the caller waits on', async () => {
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/RouteRequest`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'connect-timeout-ms': '50', ...as(keys.own).headers },
    body: JSON.stringify({ serviceId: 'held' }),
  })
  expect(response.status).toBe(504)
  expect(await response.json()).toMatchObject({ code: 'deadline_exceeded' })
  fixture.release()
})

test('a body that does not come is given up at the deadline', async () => {
  const session = connect(fixture.server.address)
  const stream = session.request({
    ':method': 'POST',
    ':path': '/marketplace.v1.ConsumptionService/RouteRequest',
    'content-type': 'application/grpc',
    'grpc-timeout': '100m',
    authorization: 'Bearer tg_own',
  })
  const trailers = await new Promise<Record<string, unknown>>((resolve) => stream.once('trailers', resolve))
  expect(trailers['grpc-status']).toBe('4')
  const closed = new Promise((resolve) => stream.once('close', resolve))
  stream.resume()
  await closed
  expect(stream.rstCode).toBe(constants.NGHTTP2_NO_ERROR)
  session.destroy()
})

test('a refused HTTP/1.1 caller with a body of known length reads its answer', async () => {
  const status = await new Promise((resolve, reject) => {
    const request = httpRequest(
      `${fixture.server.address}/marketplace.v1.ConsumptionService/RouteRequest`,
      { method: 'POST', headers: { 'content-type': 'application/proto', 'content-length': large.length } },
      (response) => resolve([response.statusCode, response.headers.connection]),
    )
    request.on('error', reject)
    request.end(large)
  })
  expect(status).toEqual([401, 'close'])
})

test('a message of announced size sees the same refusal, with its details', async () => {
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/RouteRequest`, {
    method: 'POST',
    headers: { 'content-type': 'application/proto', ...as(keys.own).headers },
    body: large,
  })
  expect(response.status).toBe(429)
  expect(await response.json()).toMatchObject({
    code: 'resource_exhausted',
    details: [
      {
        debug: { reason: 'MESSAGE_TOO_LARGE', metadata: { limitBytes: '4194304', messageBytes: String(large.length) } },
      },
    ],
  })
})

test('a gzip bomb is refused by its unpacked size', async () => {
  const { gzipSync } = await import('node:zlib')
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/RouteRequest`, {
    method: 'POST',
    headers: { 'content-type': 'application/proto', 'content-encoding': 'gzip', ...as(keys.own).headers },
    body: gzipSync(new Uint8Array(64 * 1024 * 1024)),
  })
  expect(response.status).toBe(429)
  expect(await response.json()).toMatchObject({ code: 'resource_exhausted' })
})

test('text that is no JSON sees INVALID_ARGUMENT and is counted as such', async () => {
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/CheckQuota`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as(keys.own).headers },
    body: '{"serviceId": 5',
  })
  expect(response.status).toBe(400)
  await until(() => fixture.ended.at(-1)?.reason === 'INVALID_ARGUMENT')
})

test('a malformed timeout is refused', async () => {
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/CheckQuota`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'connect-timeout-ms': 'soon', ...as(keys.own).headers },
    body: '{"serviceId": "s"}',
  })
  expect(response.status).toBe(400)
})

test('a call that is taken back as it comes is told to be over', async () => {
  const session = connect(fixture.server.address)
  const before = fixture.ended.length
  const headers = { ':method': 'POST', ':path': '/marketplace.v1.ConsumptionService/RouteRequest' }
  const credential = { 'content-type': 'application/grpc', authorization: `Bearer ${keys.own}` }
  const stream = session.request({ ...headers, ...credential })
  stream.on('error', () => {})
  stream.end(new Uint8Array([0, 0, 0, 0, 0]))
  stream.close(constants.NGHTTP2_CANCEL)
  await until(() => fixture.ended.length > before)
  expect(fixture.ended.at(-1)?.reason).toBe('CANCELLED')
  await until(() => fixture.server.activeCalls() === 0)
  session.destroy()
})
