import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { createTestCa, type Pair, selfSigned } from '../../test/support/test-ca.ts'
import { type Certificates, followCertificates } from './certificates.ts'
import { as, type Fixture, keys, startFixture, until } from './fixture.ts'
import type { HandshakeFailure } from './handshake-failure.ts'

const folder = mkdtempSync(join(tmpdir(), 'tollgate-tls-'))
const tls = { certPath: join(folder, 'cert.pem'), keyPath: join(folder, 'key.pem') }
const { cert: ca, key } = selfSigned()
let fixture: Fixture
let certificates: Certificates
beforeAll(async () => {
  writeFileSync(tls.certPath, ca)
  writeFileSync(tls.keyPath, key)
  certificates = await followCertificates({ ...tls, log: pino({ level: 'silent' }) })
  fixture = await startFixture({ tls: { certificates, clientAuth: 'off' } })
})
afterAll(async () => {
  await fixture.close()
  certificates.close()
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

test('answers of any size come over HTTP/1.1, one after another on a connection', async () => {
  const { host, port } = fixture.server
  const socket = connect({ host, port, ca, ALPNProtocols: ['http/1.1'] })
  let received = Buffer.alloc(0)
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk])
  })
  const sizes = [0, 3_000, 20_000, 50_000, 1_000].map((length) => ({ model: 'echo', text: 'x'.repeat(length) }))
  for (const asked of [...sizes, { model: 'echo', stream: true }, { model: 'echo' }]) {
    const body = JSON.stringify(asked)
    const head = [`x-api-key: ${keys.own}`, 'content-type: application/json', `content-length: ${body.length}`]
    socket.write(['POST /v1/chat/completions HTTP/1.1', 'host: x', ...head, '', body].join('\r\n'))
    const end = 'stream' in asked ? '\r\n0\r\n\r\n' : `\r\n\r\n${body}`
    await until(() => received.toString('latin1').endsWith(end))
    received = Buffer.alloc(0)
  }
  socket.destroy()
  await until(() => fixture.server.activeCalls() === 0)
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

describe('where certificates of clients are required', () => {
  const clientCa = createTestCa()
  const failures: HandshakeFailure[] = []
  let strict: Fixture
  let followed: Certificates
  beforeAll(async () => {
    const clientCaPath = join(folder, 'clients.pem')
    writeFileSync(clientCaPath, clientCa.cert)
    followed = await followCertificates({ ...tls, clientCaPath, log: pino({ level: 'silent' }) })
    const handshakeFailed = (why: HandshakeFailure) => void failures.push(why)
    strict = await startFixture({ tls: { certificates: followed, clientAuth: 'required', handshakeFailed } })
  })
  afterAll(async () => {
    await strict.close()
    followed.close()
  })

  function quota(pair?: Pair): Promise<unknown> {
    const transport = createGrpcTransport({ baseUrl: strict.server.address, nodeOptions: { ca, ...pair } })
    return createClient(ConsumptionService, transport).checkQuota({ serviceId: 's' }, as(keys.own))
  }

  const refused: [string, HandshakeFailure, Pair | undefined][] = [
    ['no certificate', 'certificate_missing', undefined],
    ['one of another CA', 'certificate_untrusted', createTestCa('another').issue()],
    ['one of another CA of the same name', 'certificate_untrusted', createTestCa().issue()],
    ['an expired one', 'certificate_expired', clientCa.issue({ notAfterMs: Date.now() - 60_000 })],
    ['one of the future', 'certificate_not_yet_valid', clientCa.issue({ notBeforeMs: Date.now() + 3_600_000 })],
  ]
  test.each(refused)('a client with %s gets no connection', async (_, why, pair) => {
    failures.length = 0
    await expect(quota(pair)).rejects.toThrow()
    expect(failures).toContain(why)
  })

  test('a client with a good one calls', async () => {
    expect(await quota(clientCa.issue())).toMatchObject({ tier: 'basic' })
  })
})
