import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService, Tier } from '../gen/marketplace/v1/consumers_pb.ts'
import { ConsumptionService, StreamRequestRequestSchema, UsageSource } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { DisconnectPolicy, Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { CallStatus, type UsageRecord, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { type PracticeRecord, readPracticeLog } from '../src/practice/log.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { rawGrpc, rawHttp1 } from './support/raw-streams.ts'
import { type WireName, wiresOf } from './support/stream-wires.ts'
import { scratchDir, spawnTollgate, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const wireNames = ['gRPC', 'gRPC-Web', 'Connect JSON', 'OpenAI API'] as const satisfies readonly WireName[]
const { CANCEL, DRAIN } = DisconnectPolicy
/** A stream that lasts longer than its test. */
const endless = 'out=256,pace=200'

let dataDir: string
let logPath: string
let backend: PracticeBackend
let tollgate: Tollgate
let key: string
let services = 0

beforeAll(async () => {
  dataDir = await scratchDir()
  logPath = join(dataDir, 'backend.jsonl')
  backend = await startPracticeBackend({ logPath })
  tollgate = await startTollgate({ command: 'serve', dataDir, env: { TOLLGATE_ADMIN_KEY: adminKey } })
  const consumers = tollgate.client(ConsumerService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'callers' } })
  const consumer = { name: 'callers', organizationId, tier: Tier.ENTERPRISE, grantedServices: ['*'] }
  const { id: consumerId } = await consumers.createConsumer({ consumer })
  key = (await tollgate.client(KeyService, adminKey).createKey({ consumerId })).key
})

afterAll(async () => {
  await tollgate?.stop()
  await backend?.close()
  await rm(dataDir, { recursive: true, force: true })
})

describe.each(wireNames)('a caller that leaves after the third token, over %s,', (wire) => {
  /** Leaves a stream of a service with this policy, and resolves with its record and what the backend wrote of it. */
  async function leave(
    fault: string,
    onDisconnect: DisconnectPolicy,
    drainLimit?: { seconds: bigint },
  ): Promise<{ record: UsageRecord; lines: readonly PracticeRecord[] }> {
    const service = await makeService(fault, { onDisconnect, ...(drainLimit === undefined ? {} : { drainLimit }) })
    const caller = new AbortController()
    const onText = (text: string): void => {
      if (text.split(' ').length >= 3) caller.abort()
    }
    const call = { key, service: service.name, prompt: 'x', mode: 'stream', signal: caller.signal, onText } as const
    const told = await wiresOf(tollgate.address)
      [wire](call)
      .catch(() => undefined)
    expect(told?.isSuccess ?? false).toBe(false)
    const record = await recordOf(service.id)
    const { used } = await tollgate.client(ConsumptionService, key).checkQuota({ serviceId: service.id })
    expect(used).toBe(record.usage?.totalTokens)
    await eventually(() => backend.stats().inFlight === 0)
    return { record, lines: readPracticeLog(logPath).filter(({ requestId }) => requestId === record.requestId) }
  }

  test('ends the backend’s call with "cancel", and pays what was delivered', async () => {
    const { record, lines } = await leave(endless, CANCEL)
    const [, aborted] = lines
    expect(aborted?.outcome).toBe('aborted')
    expect(aborted?.deliveredTokens).toBeLessThan(256)
    expect(record).toMatchObject({ status: CallStatus.CANCELLED, usage: { source: UsageSource.PARTIAL } })
    expect(record.usage?.outputTokens).toBeGreaterThanOrEqual(3n)
    expect(record.usage?.outputTokens).toBeLessThanOrEqual(BigInt(aborted?.deliveredTokens ?? 0))
  })

  test('lets the backend end with "drain", and pays all of it', async () => {
    const { record, lines } = await leave('out=20,pace=50', DRAIN)
    expect(lines.map(({ outcome }) => outcome)).toEqual(['served'])
    const usage = { source: UsageSource.PROVIDER, outputTokens: 20n }
    expect(record).toMatchObject({ status: CallStatus.SUCCEEDED, usage })
  })

  test('lets the backend go on for a while with a limit to "drain", and pays what came until then', async () => {
    const { record, lines } = await leave(endless, DRAIN, { seconds: 2n })
    const [, aborted] = lines
    expect(aborted?.outcome).toBe('aborted')
    expect(aborted?.deliveredTokens).toBeLessThan(256)
    expect(record).toMatchObject({ status: CallStatus.CANCELLED, usage: { source: UsageSource.PARTIAL } })
    // At five a second, some came after the caller had left.
    expect(record.usage?.outputTokens).toBeGreaterThan(4n)
    expect(record.usage?.outputTokens).toBeLessThanOrEqual(BigInt(aborted?.deliveredTokens ?? 0))
  })
})

describe('a deadline in the middle of a stream', () => {
  const deadline = { 'x-request-timeout-ms': '2000' }

  /** Answers how many messages came before the error. */
  const wires: Readonly<Record<WireName, (service: string) => Promise<string>>> = {
    gRPC: async (serviceId) => {
      const { trailers } = await rawGrpc(tollgate.address, key, request(serviceId), deadline)
      return `grpc-status: ${trailers['grpc-status']}`
    },
    'gRPC-Web': async (serviceId) => {
      const type = 'application/grpc-web+proto'
      const { frames } = await rawHttp1(tollgate.address, key, type, request(serviceId), deadline)
      return frames.at(-1)?.data.toString() ?? ''
    },
    'Connect JSON': async (serviceId) => {
      const type = 'application/connect+json'
      const { frames } = await rawHttp1(tollgate.address, key, type, request(serviceId), deadline)
      return frames.at(-1)?.data.toString() ?? ''
    },
    'OpenAI API': async (model) => {
      const response = await fetch(`${tollgate.address}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${key}`, ...deadline },
        body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: 'x' }] }),
      })
      return (await response.text()).split('\n\n').at(-2) ?? ''
    },
  }

  test.each([
    ['gRPC', /^grpc-status: 4$/],
    ['gRPC-Web', /^grpc-status: *4\r?$/m],
    ['Connect JSON', /"code":"deadline_exceeded"/],
    ['OpenAI API', /^data: \{"error":.*"code":"deadline_exceeded"\}\}$/],
  ] as const)('is told by %s, and what was delivered is paid', async (wire, error) => {
    const { id, name } = await makeService(endless)
    expect(await wires[wire](wire === 'OpenAI API' ? name : id)).toMatch(error)
    const record = await recordOf(id)
    expect(record).toMatchObject({ status: CallStatus.DEADLINE_EXCEEDED, usage: { source: UsageSource.PARTIAL } })
    expect(record.usage?.outputTokens).toBeGreaterThan(0n)
    await eventually(() => backend.stats().inFlight === 0)
  })

  function request(serviceId: string) {
    return create(StreamRequestRequestSchema, { serviceId, payload: chat('x') })
  }
})

test('after all of it, the books balance', async () => {
  expect(await tollgate.terminate()).toBe(0)
  const { child, output } = spawnTollgate(['books', '--backend-log', logPath], { TOLLGATE_DATA_DIR: dataDir })
  const [code] = await once(child, 'close')
  expect(output()).toContain('The books balance.')
  expect(code).toBe(0)
})

async function makeService(
  fault: string,
  policy: { onDisconnect?: DisconnectPolicy; drainLimit?: { seconds: bigint } } = {},
): Promise<{ readonly id: string; readonly name: string }> {
  const url = `${backend.url}/v1/chat/completions?fault=${encodeURIComponent(fault)}`
  const name = `callers-${++services}`
  const service = { name, version: '1.0.0', endpoints: [{ url }], ...policy }
  const { id } = await tollgate.client(Registry, adminKey).registerService({ service })
  return { id, name }
}

/** The one record of a service that was called once. */
async function recordOf(serviceId: string): Promise<UsageRecord> {
  const usage = tollgate.client(UsageService, key)
  const [record, ...more] = await eventually(async () => {
    const { usageRecords } = await usage.listUsageRecords({ pageSize: 1000 })
    const found = usageRecords.filter((each) => each.serviceId === serviceId)
    return found.length > 0 && found
  })
  expect(more).toEqual([])
  if (record === undefined) throw new Error('no record')
  return record
}
