import { create, createFileRegistry, type DescService } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt'
import { createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { expect, test } from 'vitest'
import { Health } from '../../gen/grpc/health/v1/health_pb.ts'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { keyOf } from '../../test/support/invoke.ts'
import { keyScopes } from '../identity/key-scopes.ts'
import { declaredAccess, declaredPaths } from './authorize.ts'
import { as, clientOf, keys, ownConsumer, startFixture, wireNames } from './fixture.ts'
import { describeRpcs, register } from './rpc.ts'

test('the contract says who may call', () => {
  const { routeRequest } = ConsumptionService.method
  expect(declaredAccess(routeRequest)).toEqual({ permission: 'consumption.route' })
  expect(declaredPaths(routeRequest).consumerPath.map((field) => field.name)).toEqual(['consumer_id'])
  expect(declaredAccess(Health.method.check)).toBe('undeclared')
})

test('services of others are public by their registration, and no service is registered twice', () => {
  const open = register(Health, {}, { public: true })
  expect(describeRpcs([open]).get('/grpc.health.v1.Health/Check')?.access).toBe('public')
  expect(() => describeRpcs([open, open])).toThrow('registered twice')
})

test('an RPC whose contract says nothing is refused to everyone, administrators too', async () => {
  const fixture = await startFixture({ services: [register(undeclared(), {})] })
  for (const key of Object.values(keys)) {
    const response = await fetch(`${fixture.server.address}/test.v1.Undeclared/Ping`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...as(key).headers },
      body: '{}',
    })
    expect(response.status).toBe(403)
    expect(await response.json()).toMatchObject({ code: 'permission_denied' })
  }
  expect(fixture.ended.map(({ reason }) => reason)).toEqual(Array(3).fill('PERMISSION_MISSING'))
  await fixture.close()
})

/** A service whose RPC carries no option. */
function undeclared(): DescService {
  const empty = '.google.protobuf.Empty'
  const file = create(FileDescriptorProtoSchema, {
    name: 'test/v1/undeclared.proto',
    package: 'test.v1',
    syntax: 'proto3',
    dependency: [file_google_protobuf_empty.proto.name],
    service: [{ name: 'Undeclared', method: [{ name: 'Ping', inputType: empty, outputType: empty }] }],
  })
  const set = create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] })
  const service = createFileRegistry(set).getService('test.v1.Undeclared')
  if (service === undefined) throw new Error('the test built no service')
  return service
}

test('with RBAC off every authenticated caller may call, an unknown one still may not', async () => {
  const fixture = await startFixture({ rbac: false })
  const client = clientOf(fixture, 'grpc')
  await client.checkQuota({ serviceId: 's', consumerId: 'another' }, as(keys.noRoles))
  await expect(client.checkQuota({ serviceId: 's' }, as('tg_wrong'))).rejects.toMatchObject({ code: 16 })
  const health = createClient(Health, createGrpcTransport({ baseUrl: fixture.server.address }))
  await health.check({}, as('tg_wrong'))
  await fixture.close()
})

test('a key that is narrowed to other permissions is told so, on every wire', async () => {
  const scopes = keyScopes({ services: [], permissions: ['consumption.route'], models: [] })
  const caller = { ...keyOf({ id: ownConsumer, organizationId: 'o1' }), scopes }
  const fixture = await startFixture({ authenticate: async () => caller })
  for (const wire of wireNames) {
    const client = clientOf(fixture, wire)
    await client.routeRequest({ serviceId: 's' }, as(keys.own))
    await expect(client.checkQuota({ serviceId: 's' }, as(keys.own))).rejects.toMatchObject({ code: 7 })
  }
  expect(new Set(fixture.ended.map(({ reason }) => reason))).toEqual(new Set(['OK', 'KEY_SCOPE_MISSING']))
  const response = await fetch(`${fixture.server.address}/v1/models`, as(keys.own))
  expect([response.status, await response.json()]).toMatchObject([403, { error: { code: 'key_scope_missing' } }])
  await fixture.close()
})
