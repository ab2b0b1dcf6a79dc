import { rm } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:http2'
import { join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import { createClient } from '@connectrpc/connect'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  ConsumptionService,
  type StreamRequestRequest,
  StreamRequestRequestSchema,
  UsageSource,
} from '../gen/marketplace/v1/consumption_pb.ts'
import { CallStatus, type UsageRecord, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { readPracticeLog } from '../src/practice/log.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { enveloped } from './support/raw-streams.ts'
import { type Told, wiresOf } from './support/stream-wires.ts'
import { makeTenant, type Tenant } from './support/tenant.ts'
import { scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const mebibyte = 1_048_576
/** Of each stream of the crowd; long enough that all are open before the first one ends. */
const tokens = 100
const paceMs = 150

let dataDir: string
let logPath: string
let backend: PracticeBackend
let tollgate: Tollgate
let crowd: Tenant
let lavish: Tenant

beforeAll(async () => {
  dataDir = await scratchDir()
  logPath = join(dataDir, 'backend.jsonl')
  backend = await startPracticeBackend({ logPath })
  const env = { TOLLGATE_ADMIN_KEY: adminKey, BACKEND_CONNECTIONS_PER_HOST: '1000' }
  tollgate = await startTollgate({ command: 'serve', dataDir, env })
  const url = `${backend.url}/v1/chat/completions`
  const overrides = { requestsPerSecond: 1_000n }
  const fault = encodeURIComponent(`out=${tokens},pace=${paceMs}`)
  crowd = await makeTenant(tollgate, adminKey, 'crowd', `${url}?fault=${fault}`, overrides)
  lavish = await makeTenant(tollgate, adminKey, 'lavish', url)
})

afterAll(async () => {
  await tollgate?.stop()
  await backend?.close()
  await rm(dataDir, { recursive: true, force: true })
})

test('500 streams at once, one of them read slowly: all are whole, and what the slow one leaves is not collected', async () => {
  const sessionManager = new Http2SessionManager(tollgate.address)
  const wires = wiresOf(tollgate.address, sessionManager)
  const transport = createGrpcTransport({ baseUrl: tollgate.address, sessionManager })
  const before = await residentBytes()
  const watched = watchMemory()
  // 384 MiB, over the connection that half of the others use.
  const slow = createClient(ConsumptionService, transport)
    .streamRequest(request(256, 1.5 * mebibyte), { timeoutMs: 300_000, headers: authorization(lavish) })
    [Symbol.asyncIterator]()
  let told: Told[]
  try {
    expect((await slow.next()).value?.part.case).toBe('start')
    const others = Array.from({ length: 499 }, (_, i) => {
      const wire = wires[i % 2 === 0 ? 'gRPC' : 'OpenAI API']
      return wire({ key: crowd.key, service: 'crowd', prompt: `stream ${i}`, mode: 'stream' })
    })
    await eventually(() => backend.stats().inFlight === 500)
    told = await Promise.all(others)
    for (const { isSuccess, error, text } of told) {
      const words = text.split(' ').length
      expect({ isSuccess, error, words }).toEqual({ isSuccess: true, error: undefined, words: tokens })
    }
    // Nobody waited for the slow one: nearly all of it is still to come, and kept nowhere on the way.
    expect(((await watched.stop()) - before) / mebibyte).toBeLessThan(400)
    expect(backend.stats().inFlight).toBe(1)

    const parts: (string | undefined)[] = []
    for (let next = await slow.next(); next.done !== true; next = await slow.next()) parts.push(next.value.part.case)
    expect(parts.at(-1)).toBe('end')
    expect(parts.filter((part) => part === 'eventData').length).toBeGreaterThanOrEqual(256)
  } finally {
    await watched.stop()
    await slow.return?.()
  }

  const records = await eventually(async () => {
    const found = await recordsOf(crowd)
    return found.length >= 499 && found
  })
  expect(records.map(({ requestId }) => requestId).sort()).toEqual(told.map(({ requestId }) => requestId).sort())
  for (const { status, usage } of records) {
    expect([status, usage?.outputTokens]).toEqual([CallStatus.SUCCEEDED, BigInt(tokens)])
  }
})

/** Callers that send a request and never read its answer. */
const deafCallers: Readonly<Record<string, (path: string, message: StreamRequestRequest) => { destroy(): unknown }>> = {
  'gRPC over HTTP/2'(path, message) {
    const session = connect(tollgate.address)
    const type = { 'content-type': 'application/grpc', te: 'trailers' }
    const stream = session.request({ ':method': 'POST', ':path': path, ...type, ...timeout, ...authorization(lavish) })
    // It is cut some time after its deadline.
    stream.on('error', () => {})
    stream.end(enveloped(toBinary(StreamRequestRequestSchema, message)))
    return session
  },

  'gRPC-Web over HTTP/1.1'(path, message) {
    const headers = { 'content-type': 'application/grpc-web+proto', ...timeout, ...authorization(lavish) }
    const sent = httpRequest(tollgate.address + path, { method: 'POST', headers })
    sent.on('error', () => {})
    // Without a listener for it, the answer would be read and thrown away.
    sent.on('response', (response) => response.on('error', () => {}))
    sent.end(enveloped(toBinary(StreamRequestRequestSchema, message)))
    return sent
  },
}

test.each(Object.entries(deafCallers))(
  'a caller that reads nothing until its deadline (%s) holds its backend back, and leaves its record',
  async (_name, call) => {
    const before = new Set((await recordsOf(lavish)).map(({ id }) => id))
    const path = '/marketplace.v1.ConsumptionService/StreamRequest'
    const caller = call(path, create(StreamRequestRequestSchema, request(256, 409_600)))
    try {
      const record = await eventually(async () => (await recordsOf(lavish)).find(({ id }) => !before.has(id)))
      expect(record).toMatchObject({ status: CallStatus.DEADLINE_EXCEEDED, errorReason: 'DEADLINE_EXCEEDED' })
      expect(record.usage?.source).toBe(UsageSource.PARTIAL)
      const lines = readPracticeLog(logPath).filter(({ requestId }) => requestId === record.requestId)
      expect(lines.at(-1)?.outcome).toBe('aborted')
      // What fits into buffers and sockets on the way, of 100 MiB.
      const delivered = lines.at(-1)?.deliveredTokens ?? 0
      expect(delivered).toBeLessThan(128)
      expect(record.usage?.outputTokens).toBeGreaterThan(0n)
      expect(record.usage?.outputTokens).toBeLessThanOrEqual(BigInt(delivered))
    } finally {
      caller.destroy()
    }
  },
)

const timeout = { 'x-request-timeout-ms': '5000' }

/** A call of `lavish` whose answer has so many events of so many bytes: the backend repeats the model's name in each. */
function request(events: number, eventBytes: number) {
  const model = `practice:out=${events},id=${'x'.repeat(eventBytes)}`
  return { serviceId: lavish.serviceId, payload: chat('all of it', model, events) }
}

function authorization({ key }: Tenant): { authorization: string } {
  return { authorization: `Bearer ${key}` }
}

async function recordsOf({ key }: Tenant): Promise<UsageRecord[]> {
  return (await tollgate.client(UsageService, key).listUsageRecords({ pageSize: 1000 })).usageRecords
}

/** Largest resident memory of the gate from now on. */
function watchMemory(): { stop(): Promise<number> } {
  let largest = 0
  let isOver = false
  const watching = eventually(
    async () => {
      largest = Math.max(largest, await residentBytes())
      return isOver
    },
    { timeoutMs: 300_000 },
  )
  return {
    async stop() {
      isOver = true
      await watching
      return largest
    },
  }
}

async function residentBytes(): Promise<number> {
  const page = await (await fetch(`${tollgate.address}/metrics`)).text()
  const [, bytes] = /^process_resident_memory_bytes (\S+)$/m.exec(page) ?? []
  return Number(bytes)
}
