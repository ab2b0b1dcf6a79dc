import type { DescMethodUnary } from '@bufbuild/protobuf'
import { Code, type Transport } from '@connectrpc/connect'
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { ListLimitsRequestSchema } from '../../gen/marketplace/v1/limits_pb.ts'
import { refusal } from '../../test/support/refusal.ts'
import { as, type Fixture, keys, startFixture, until } from './fixture.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
})

const transports: Readonly<Record<string, (baseUrl: string) => Transport>> = {
  grpc: (baseUrl) => createGrpcTransport({ baseUrl, useBinaryFormat: false, sendCompression: compressionGzip }),
  'grpc-web': (baseUrl) =>
    createGrpcWebTransport({ baseUrl, httpVersion: '2', useBinaryFormat: false, sendCompression: compressionGzip }),
  Connect: (baseUrl) =>
    createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: false, sendCompression: compressionGzip }),
}

const { checkQuota, routeRequest } = ConsumptionService.method

/** The same RPC to a caller with another idea of its request. */
const misunderstood: DescMethodUnary = { ...checkQuota, input: ListLimitsRequestSchema }

describe.each(Object.entries(transports))('over %s', (_, transportTo) => {
  const call = (method: DescMethodUnary, message: Record<string, unknown>) =>
    refusal(transportTo(fixture.server.address).unary(method, undefined, undefined, as(keys.own).headers, message))

  test('a message with a field that is not there sees INVALID_ARGUMENT with the field’s name', async () => {
    expect(await call(misunderstood, { pageSize: 7 })).toMatchObject({
      code: Code.InvalidArgument,
      reason: 'INVALID_ARGUMENT',
      metadata: {},
      fields: [{ field: 'pageSize', description: 'is no field of CheckQuotaRequest' }],
    })
    await until(() => fixture.ended.at(-1)?.reason === 'INVALID_ARGUMENT')
  })

  test('a message that is too large once decompressed sees MESSAGE_TOO_LARGE with the limit', async () => {
    expect(await call(routeRequest, { serviceId: 's', payload: new Uint8Array(5 * 1024 * 1024) })).toMatchObject({
      code: Code.ResourceExhausted,
      reason: 'MESSAGE_TOO_LARGE',
      metadata: { limitBytes: '4194304' },
    })
    await until(() => fixture.ended.at(-1)?.reason === 'MESSAGE_TOO_LARGE')
  })

  test('the connection works on', async () => {
    const transport = transportTo(fixture.server.address)
    const { headers } = as(keys.own)
    await refusal(transport.unary(misunderstood, undefined, undefined, headers, { pageSize: 7 }))
    const { message } = await transport.unary(checkQuota, undefined, undefined, headers, { serviceId: 's' })
    expect(message).toMatchObject({ serviceId: 's' })
    await until(() => fixture.server.activeCalls() === 0)
  })
})

test('text that is no JSON sees ErrorInfo', async () => {
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/CheckQuota`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as(keys.own).headers },
    body: '{"serviceId": 5',
  })
  expect(response.status).toBe(400)
  expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  expect(await response.json()).toMatchObject({
    code: 'invalid_argument',
    message: expect.stringContaining('JSON'),
    details: [{ type: 'google.rpc.ErrorInfo', debug: { reason: 'INVALID_ARGUMENT', domain: 'tollgate' } }],
  })
})

test.each([
  ['CheckQuota', '{"serviceId": 5}', 'service_id: expected string, got 5'],
  ['CheckQuota', '[]', 'the JSON cannot be read: Array(0)'],
  ['CheckQuota', '{"serviceId": my secret}', "the JSON cannot be read: Unexpected token 'm'"],
  ['RouteRequest', '{"payload": "%"}', 'payload: invalid base64 string'],
  ['RouteRequest', '{"metadata": {"a": 1}}', 'metadata: map entry "a": expected string, got 1'],
])('%s of %s is answered with "%s"', async (rpc, body, message) => {
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/${rpc}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as(keys.own).headers },
    body,
  })
  expect(await response.json()).toMatchObject({ code: 'invalid_argument', message })
})

test('what is refused before its message is read is refused once, for its own reason', async () => {
  const before = fixture.ended.length
  const response = await fetch(`${fixture.server.address}/marketplace.v1.ConsumptionService/CheckQuota`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as('tg_wrong').headers },
    body: '{"serviceId": 5',
  })
  expect(await response.json()).toMatchObject({ code: 'unauthenticated' })
  await until(() => fixture.ended.length > before)
  expect(fixture.ended.slice(before)).toMatchObject([{ reason: 'CREDENTIAL_INVALID' }])
})
