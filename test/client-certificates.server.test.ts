import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { connect, type TLSSocket } from 'node:tls'
import { type Client, createClient } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { Role, UserService } from '../gen/marketplace/v1/users_pb.ts'
import { eventually } from './support/eventually.ts'
import { at, parseJson } from './support/json.ts'
import { refusal } from './support/refusal.ts'
import { createTestCa, type Pair, selfSigned } from './support/test-ca.ts'
import { demoFacts, startTollgate, type Tollgate } from './support/tollgate.ts'
import { run } from './support/tools.ts'

const spiffeId = 'spiffe://prod.example/ns/payments/sa/caller'
const serverCa = createTestCa('CA of servers')
const clientCa = createTestCa('CA of clients')
const caller = clientCa.issue({ uris: [spiffeId] })

/** A gate over TLS that takes certificates of clients, and knows one workload by its SPIFFE id and one by its subject. */
let folder: string
let tollgate: Tollgate
let facts: Record<string, string>
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-mtls-'))
  await writeFile(join(folder, 'ca.pem'), clientCa.cert)
  await writePair(serverCa.issue({ commonName: 'server 0' }))
  const env = {
    TLS_CERT_FILE: join(folder, 'cert.pem'),
    TLS_KEY_FILE: join(folder, 'key.pem'),
    TLS_CLIENT_CA_FILE: join(folder, 'ca.pem'),
    TLS_CLIENT_AUTH: 'optional',
    TLS_SPIFFE_TRUST_DOMAINS: 'prod.example',
    LOG_LEVEL: 'debug',
  }
  tollgate = await startTollgate({ command: 'dev', env })
  facts = await demoFacts(tollgate)
  const users = createClient(UserService, createGrpcTransport({ baseUrl: tollgate.address, nodeOptions: trusting }))
  const roles = [Role.CONSUMER]
  const consumerId = facts.consumerId ?? ''
  for (const [issuer, subject] of [
    ['spiffe', spiffeId],
    ['x509', 'CN=batch,O=Example'],
  ] as const) {
    await users.createUser({ user: { issuer, subject, roles, consumerId } }, as(facts.adminKey))
  }
})
afterAll(async () => {
  await tollgate?.stop()
  if (folder !== undefined) await rm(folder, { recursive: true })
})

const trusting = { ca: serverCa.cert }

function as(credential = ''): { headers: { authorization: string } } {
  return { headers: { authorization: `Bearer ${credential}` } }
}

/** Each file takes its place whole, as what renews certificates does it. */
async function writePair({ cert, key }: Pair): Promise<void> {
  for (const [name, content] of [
    ['cert.pem', cert],
    ['key.pem', key],
  ] as const) {
    await writeFile(join(folder, `${name}.new`), content)
    await rename(join(folder, `${name}.new`), join(folder, name))
  }
}

/** HTTP/2 keeps its connection; HTTP/1.1 makes one for each call. */
const clients = {
  'HTTP/2': (pair?: Pair) =>
    createClient(
      ConsumptionService,
      createGrpcTransport({ baseUrl: tollgate.address, nodeOptions: { ...trusting, ...pair } }),
    ),
  'HTTP/1.1': (pair?: Pair) =>
    createClient(
      ConsumptionService,
      createConnectTransport({
        baseUrl: tollgate.address,
        httpVersion: '1.1',
        nodeOptions: { ...trusting, ...pair, agent: false },
      }),
    ),
} as const

async function tierOf(client: Client<typeof ConsumptionService>, credential?: string): Promise<string> {
  const options = credential === undefined ? {} : as(credential)
  return (await client.checkQuota({ serviceId: facts.serviceId ?? '' }, options)).tier
}

async function page(path: string): Promise<string> {
  const asking = request(`${tollgate.address}${path}`, { ...trusting, agent: false }).end()
  const [answer] = await once(asking, 'response')
  return text(answer)
}

describe.each(['HTTP/2', 'HTTP/1.1'] as const)('over %s', (version) => {
  test('a workload is known by its SPIFFE id alone', async () => {
    expect(await tierOf(clients[version](caller))).toBe('enterprise')
  })

  test('a workload without a SPIFFE id is known by its subject', async () => {
    const pair = clientCa.issue({ organization: 'Example', commonName: 'batch' })
    expect(await tierOf(clients[version](pair))).toBe('enterprise')
  })

  test('a credential beside the certificate decides who calls', async () => {
    expect(await tierOf(clients[version](caller), facts.limitedKey)).toBe('basic')
    expect(await refusal(tierOf(clients[version](caller), 'wrong'))).toMatchObject({ reason: 'CREDENTIAL_INVALID' })
  })

  test('without a certificate there must be a credential', async () => {
    expect(await refusal(tierOf(clients[version]()))).toMatchObject({ code: 16, reason: 'CREDENTIAL_MISSING' })
    expect(await tierOf(clients[version](), facts.key)).toBe('enterprise')
  })

  const strangers: [string, string, string, number][] = [
    ['another trust domain', 'spiffe://test.example/ns/payments/sa/caller', 'CERTIFICATE_IDENTITY', 16],
    ['what is no SPIFFE id', 'spiffe://prod.example/../x', 'CERTIFICATE_IDENTITY', 16],
    ['a workload that nobody added', 'spiffe://prod.example/ns/payments/sa/stranger', 'USER_UNKNOWN', 7],
  ]
  test.each(strangers)('%s is refused with a reason of its own', async (_, uri, reason, code) => {
    const pair = clientCa.issue({ uris: [uri] })
    expect(await refusal(tierOf(clients[version](pair)))).toMatchObject({ code, reason })
  })

  const now = Date.now()
  const bad: [string, Pair, string][] = [
    ['another CA', createTestCa('CA of clients').issue({ uris: [spiffeId] }), 'certificate_untrusted'],
    ['nobody but itself', selfSigned({ uris: [spiffeId] }), 'certificate_untrusted'],
    ['yesterday', clientCa.issue({ uris: [spiffeId], notAfterMs: now - 60_000 }), 'certificate_expired'],
    ['tomorrow', clientCa.issue({ uris: [spiffeId], notBeforeMs: now + 3_600_000 }), 'certificate_not_yet_valid'],
  ]
  test.each(bad)('a certificate of %s gets no connection, even with a good key', async (_, pair, why) => {
    const before = await failures(why)
    const { reason } = await refusal(tierOf(clients[version](pair), facts.key))
    expect(reason).toBeUndefined()
    expect(await failures(why)).toBeGreaterThan(before)
    expect(tollgate.output().includes('TLS handshake failed')).toBe(true)
  })

  async function failures(why: string): Promise<number> {
    const line = `tollgate_tls_handshake_failures_total{why="${why}"} `
    const metrics = await page('/metrics')
    return Number(
      metrics
        .split('\n')
        .find((each) => each.startsWith(line))
        ?.slice(line.length) ?? 0,
    )
  }
})

test('buf curl calls with a certificate', async () => {
  await writeFile(join(folder, 'server-ca.pem'), serverCa.cert)
  await writeFile(join(folder, 'caller.pem'), caller.cert)
  await writeFile(join(folder, 'caller.key'), caller.key)
  const { code, stdout, stderr } = await run('buf', [
    'curl',
    ...['--cacert', join(folder, 'server-ca.pem'), '--protocol', 'grpc'],
    ...['--cert', join(folder, 'caller.pem'), '--key', join(folder, 'caller.key')],
    ...['-d', JSON.stringify({ serviceId: facts.serviceId })],
    `${tollgate.address}/marketplace.v1.ConsumptionService/CheckQuota`,
  ])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(at(parseJson(stdout), 'tier')).toBe('enterprise')
})

test('no session is resumed past the check of its certificate', async () => {
  const { hostname: host, port } = new URL(tollgate.address)
  const open = (session?: Buffer): TLSSocket =>
    connect({ host, port: Number(port), ...trusting, ...caller, ALPNProtocols: ['h2'], ...(session && { session }) })
  const first = open()
  const [session] = await once(first, 'session')
  first.destroy()
  const second = open(session)
  await once(second, 'secureConnect')
  expect(second.isSessionReused()).toBe(false)
  second.destroy()
})

describe('certificates are reloaded', () => {
  async function health(): Promise<{ status?: unknown; detail?: unknown }> {
    return Object(at(parseJson(await page('/health/detailed')), 'components', 'certificate'))
  }

  async function nameShown(): Promise<string> {
    const { hostname: host, port } = new URL(tollgate.address)
    const socket = connect({ host, port: Number(port), ...trusting, ALPNProtocols: ['h2'] })
    await once(socket, 'secureConnect')
    const { subject } = socket.getPeerCertificate()
    socket.destroy()
    return String(subject.CN)
  }

  test('under load, without a failed call', async () => {
    const { signal, stop } = stopper()
    const outcomes = { 'HTTP/2': 0, 'HTTP/1.1': 0 }
    const load = (['HTTP/2', 'HTTP/1.1'] as const).flatMap((version) =>
      Array.from({ length: 4 }, async () => {
        const client = clients[version](caller)
        while (!signal.aborted) {
          expect(await tierOf(client)).toBe('enterprise')
          outcomes[version]++
        }
      }),
    )
    const working = Promise.all(load)
    working.catch(stop)
    for (let round = 1; round <= 5; round++) {
      const before = { ...outcomes }
      await writePair(serverCa.issue({ commonName: `server ${round}` }))
      await eventually(async () => (await nameShown()) === `server ${round}`)
      await eventually(() => signal.aborted || moved(before, outcomes))
    }
    stop()
    await working
    expect(alerts()).toEqual([])
  })

  test('a broken pair is kept out, and said', async () => {
    await writeFile(join(folder, 'key.pem'), selfSigned().key)
    await eventually(async () => (await health()).status === 'degraded')
    expect((await health()).detail).toMatch(/^valid until .*; the new one is not used: .*mismatch/)
    expect(alerts()).toEqual([expect.stringContaining('the new certificate cannot be used')])
    expect(await tierOf(clients['HTTP/1.1'](caller))).toBe('enterprise')
    await writePair(serverCa.issue({ commonName: 'mended' }))
    await eventually(async () => (await nameShown()) === 'mended')
    expect(await health()).toMatchObject({ status: 'ok' })
    expect(await page('/metrics')).toMatch(/tollgate_tls_certificate_expires_seconds 8[0-9.e+]+/)
  })

  test('another CA of clients takes the place of the first for new connections; those that are open go on', async () => {
    const kept = clients['HTTP/2'](caller)
    expect(await tierOf(kept)).toBe('enterprise')
    const nextCa = createTestCa('next CA of clients')
    await writeFile(join(folder, 'ca.pem'), nextCa.cert)
    const next = nextCa.issue({ uris: [spiffeId] })
    await eventually(async () => (await tierOf(clients['HTTP/2'](next))) === 'enterprise')
    expect((await refusal(tierOf(clients['HTTP/1.1'](caller)))).reason).toBeUndefined()
    expect(await tierOf(kept)).toBe('enterprise')
  })
})

/** Loud lines of the log. */
function alerts(): readonly string[] {
  return tollgate
    .output()
    .split('\n')
    .filter((line) => line.includes('ALERT'))
}

function stopper(): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController()
  return { signal: controller.signal, stop: () => controller.abort() }
}

/** Whether both made calls since. */
function moved(before: Record<string, number>, now: Record<string, number>): boolean {
  return Object.keys(before).every((version) => (now[version] ?? 0) > (before[version] ?? 0) + 5)
}
