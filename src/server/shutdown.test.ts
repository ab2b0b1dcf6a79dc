import { connect } from 'node:net'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { describe, expect, test } from 'vitest'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health_pb.ts'
import { as, clientOf, keys, startFixture, until, type Wire } from './fixture.ts'

describe.each(['grpc', 'Connect JSON over HTTP/1.1'] satisfies Wire[])('%s', (wire) => {
  test('close lets a call finish, and is idempotent', async () => {
    const fixture = await startFixture()
    const before = fixture.calls.length
    const call = clientOf(fixture, wire).routeRequest({ serviceId: 'held' }, as(keys.own))
    await until(() => fixture.calls.length > before)
    const closed = Promise.all([fixture.close(), fixture.close()])
    fixture.release()
    expect((await call).requestId).toBe(fixture.calls[0]?.id)
    await closed
    expect(fixture.server.activeCalls()).toBe(0)
    expect(fixture.ended.at(-1)?.reason).toBe('OK')
  })

  test('a call that does not finish is aborted with SHUTTING_DOWN, and its caller is told', async () => {
    const fixture = await startFixture({ drainMs: 400 })
    const call = clientOf(fixture, wire)
      .routeRequest({ serviceId: 'deaf' }, as(keys.own))
      .catch((error: unknown) => ConnectError.from(error))
    await until(() => fixture.calls.length === 1)
    await fixture.close()
    expect(await call).toMatchObject({ code: Code.Unavailable, rawMessage: 'the server is shutting down' })
    expect(fixture.calls[0]?.signal.reason).toMatchObject({ reason: 'SHUTTING_DOWN' })
    fixture.release()
  })
})

test('watchers of the health hear NOT_SERVING, and do not hold the shutdown', async () => {
  const fixture = await startFixture({ drainMs: 60_000 })
  const client = createClient(Health, createGrpcTransport({ baseUrl: fixture.server.address }))
  const seen: Status[] = []
  const watching = (async () => {
    for await (const { status } of client.watch({})) seen.push(status)
  })().catch((error: unknown) => ConnectError.from(error).code)
  await until(() => seen.length === 1)
  await fixture.close()
  expect(await watching).toBe(Code.Unavailable)
  expect(seen).toEqual([Status.SERVING, Status.NOT_SERVING])
})

test('idle and silent connections do not hold the shutdown, and no new one is accepted', async () => {
  const fixture = await startFixture({ drainMs: 60_000 })
  const { host, port } = fixture.server
  const silent = connect(port, host)
  await new Promise((resolve) => silent.once('connect', resolve))
  await fetch(`${fixture.server.address}/health`)
  await createClient(Health, createGrpcTransport({ baseUrl: fixture.server.address })).check({})
  await fixture.close()
  const late = connect(port, host)
  const refused = await new Promise((resolve) => {
    late.once('connect', () => resolve('connected'))
    late.once('error', () => resolve('refused'))
  })
  expect(refused).toBe('refused')
  silent.destroy()
})

test.each([
  ['nothing', ''],
  ['the start of an HTTP/2 preface', 'PRI * HT'],
  ['half of its headers', 'POST / HTTP/1.1\r\nhost: x\r\n'],
])('a connection that says %s is closed after the time for headers', async (_, bytes) => {
  const fixture = await startFixture({ headersTimeoutMs: 100 })
  const silent = connect(fixture.server.port, fixture.server.host)
  silent.write(bytes)
  await new Promise((resolve) => silent.once('close', resolve).resume())
  await fixture.close()
})

test('a body that does not come in time is refused, and its call is over', async () => {
  const fixture = await startFixture({ bodyTimeoutMs: 100 })
  const slow = connect(fixture.server.port, fixture.server.host)
  const path = '/marketplace.v1.ConsumptionService/CheckQuota'
  const headers = `host: x\r\nx-api-key: ${keys.own}\r\ncontent-type: application/json\r\ncontent-length: 20`
  slow.write(`POST ${path} HTTP/1.1\r\n${headers}\r\n\r\n{`)
  let answer = ''
  slow.on('data', (chunk) => {
    answer += chunk
  })
  await new Promise((resolve) => slow.once('close', resolve))
  expect(answer).toMatch(/^HTTP\/1.1 504 /)
  expect(answer).toContain('the request body did not arrive within 100 ms')
  expect(fixture.server.activeCalls()).toBe(0)
  await fixture.close()
})

test('a connection of full age is asked to close, and its calls finish', async () => {
  const fixture = await startFixture({ maxConnectionAgeMs: 50 })
  const client = clientOf(fixture, 'grpc')
  const call = client.routeRequest({ serviceId: 'held' }, as(keys.own))
  await until(() => fixture.calls.length === 1)
  const aged = Date.now() + 100
  await until(() => Date.now() > aged)
  fixture.release()
  expect((await call).requestId).not.toBe('')
  expect((await client.routeRequest({ serviceId: 'echo' }, as(keys.own))).requestId).not.toBe('')
  await fixture.close()
})
