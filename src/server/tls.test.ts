import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { as, type Fixture, keys, startFixture } from './fixture.ts'
import { selfSigned } from './self-signed.ts'

const folder = mkdtempSync(join(tmpdir(), 'tollgate-tls-'))
const tls = { certPath: join(folder, 'cert.pem'), keyPath: join(folder, 'key.pem') }
const { cert: ca, key } = selfSigned()
let fixture: Fixture
beforeAll(async () => {
  writeFileSync(tls.certPath, ca)
  writeFileSync(tls.keyPath, key)
  fixture = await startFixture({ tls })
})
afterAll(async () => {
  await fixture.close()
  rmSync(folder, { recursive: true })
})

test('gRPC, Connect over HTTP/1.1 and pages share the TLS port', async () => {
  const baseUrl = fixture.server.address
  expect(baseUrl).toMatch(/^https:/)
  const transports = [
    createGrpcTransport({ baseUrl, nodeOptions: { ca } }),
    createConnectTransport({ baseUrl, httpVersion: '1.1', nodeOptions: { ca, agent: false } }),
  ]
  for (const transport of transports) {
    const answer = await createClient(ConsumptionService, transport).checkQuota({ serviceId: 's' }, as(keys.own))
    expect(answer.tier).toBe('basic')
  }
  const status = await new Promise((resolve, reject) => {
    request(`${baseUrl}/health`, { ca, agent: false }, (response) => resolve(response.resume().statusCode))
      .on('error', reject)
      .end()
  })
  expect(status).toBe(200)
})

test('TLS 1.2 is refused', async () => {
  const { host, port } = fixture.server
  const socket = connect({ host, port, ca, maxVersion: 'TLSv1.2' })
  const failure = await new Promise((resolve) => {
    socket.once('error', (error) => resolve(error.message))
    socket.once('secureConnect', () => resolve('connected'))
  })
  expect(failure).toMatch(/protocol version/)
})

test('a certificate that cannot be read fails the start', async () => {
  await expect(startFixture({ tls: { ...tls, keyPath: join(folder, 'none.pem') } })).rejects.toThrow('none.pem')
})
