import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ConsumerService, Tier } from '../gen/marketplace/v1/consumers_pb.ts'
import { UsageSource } from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { DisconnectPolicy, Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { CallStatus, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { type Told, wiresOf } from './support/stream-wires.ts'
import { scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'

let dataDir: string
let backend: PracticeBackend
let tollgate: Tollgate

const start = (): Promise<Tollgate> => {
  const env = { TOLLGATE_ADMIN_KEY: adminKey, DRAIN_TIMEOUT_MS: '2000' }
  return startTollgate({ command: 'serve', dataDir, env })
}

beforeAll(async () => {
  dataDir = await scratchDir()
  backend = await startPracticeBackend()
  tollgate = await start()
})

afterAll(async () => {
  await tollgate?.stop()
  await backend?.close()
  await rm(dataDir, { recursive: true, force: true })
})

test('streams that last longer than the shutdown are told so, and recorded at what they delivered', async () => {
  const consumers = tollgate.client(ConsumerService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'shutdown' } })
  const consumer = { name: 'shutdown', organizationId, tier: Tier.ENTERPRISE, grantedServices: ['*'] }
  const { id: consumerId } = await consumers.createConsumer({ consumer })
  const { key } = await tollgate.client(KeyService, adminKey).createKey({ consumerId })
  const url = `${backend.url}/v1/chat/completions?fault=${encodeURIComponent('out=256,pace=200')}`
  const service = { name: 'endless', version: '1.0.0', endpoints: [{ url }], onDisconnect: DisconnectPolicy.DRAIN }
  await tollgate.client(Registry, adminKey).registerService({ service })
  const wires = wiresOf(tollgate.address)

  // One whose caller has left, which nobody can be told of, and one in each of two protocols.
  const caller = new AbortController()
  const stream = { key, service: 'endless', prompt: 'x', mode: 'stream' } as const
  await wires['gRPC-Web']({ ...stream, signal: caller.signal, onText: (text) => text.includes(' ') && caller.abort() })
  const reading = Promise.withResolvers<void>()
  let readers = 0
  const onText = (text: string): void => {
    if (text.split(' ').length === 3 && ++readers === 2) reading.resolve()
  }
  const told: Promise<Told>[] = [wires.gRPC({ ...stream, onText }), wires['OpenAI API']({ ...stream, onText })]
  await reading.promise
  expect(backend.stats().inFlight).toBe(3)
  expect(await tollgate.terminate()).toBe(0)
  const [grpc, openai] = await Promise.all(told)
  expect(grpc).toMatchObject({ isSuccess: false, error: { reason: 'SHUTTING_DOWN' } })
  expect(openai).toMatchObject({ isSuccess: false, error: { kind: 'event', code: 'shutting_down' } })
  await eventually(() => backend.stats().inFlight === 0)

  tollgate = await start()
  const usage = tollgate.client(UsageService, key)
  const records = await eventually(async () => {
    const { usageRecords } = await usage.listUsageRecords({})
    return usageRecords.length >= 3 && usageRecords
  })
  expect(records).toHaveLength(3)
  for (const record of records) {
    expect(record).toMatchObject({ status: CallStatus.CANCELLED, errorReason: 'SHUTTING_DOWN' })
    expect(record.usage?.source).toBe(UsageSource.PARTIAL)
    expect(record.usage?.outputTokens).toBeGreaterThanOrEqual(2n)
    expect(record.usage?.outputTokens).toBeLessThan(256n)
  }
})
