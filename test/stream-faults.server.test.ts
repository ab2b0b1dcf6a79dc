import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { create, fromBinary, fromJsonString, type MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumerService, Tier } from '../gen/marketplace/v1/consumers_pb.ts'
import {
  StreamRequestRequestSchema,
  type StreamRequestResponse,
  StreamRequestResponseSchema,
  UsageSource,
} from '../gen/marketplace/v1/consumption_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { type EndpointSchema, Registry } from '../gen/marketplace/v1/registry_pb.ts'
import { CallStatus, type UsageRecord, UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { attemptIdOf } from '../src/metering/attempt-id.ts'
import { type PracticeBackend, startPracticeBackend } from '../src/practice/backend.ts'
import { readPracticeLog } from '../src/practice/log.ts'
import { eventually } from './support/eventually.ts'
import { type FaultOutcome, faultTable, printFaultTable, tokensBefore, toldError } from './support/fault-table.ts'
import { parseJson } from './support/json.ts'
import { chat } from './support/payloads.ts'
import { rawGrpc, rawHttp1 } from './support/raw-streams.ts'
import { type Told, type ToldError, type WireName, wiresOf } from './support/stream-wires.ts'
import { scratchDir, spawnTollgate, startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const wireNames = ['gRPC', 'gRPC-Web', 'Connect JSON', 'OpenAI API'] as const satisfies readonly WireName[]
/** Of every answer that is whole. */
const tokens = 12
const nanos = { input: 1_000, output: 2_000 }

let dataDir: string
let logPath: string
let backend: PracticeBackend
let tollgate: Tollgate
let key: string
let wires: ReturnType<typeof wiresOf>

beforeAll(async () => {
  dataDir = await scratchDir()
  logPath = join(dataDir, 'backend.jsonl')
  backend = await startPracticeBackend({ logPath })
  const env = { TOLLGATE_ADMIN_KEY: adminKey }
  tollgate = await startTollgate({ command: 'serve', dataDir, env })
  const consumers = tollgate.client(ConsumerService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'faults' } })
  const consumer = { name: 'faults', organizationId, tier: Tier.ENTERPRISE, grantedServices: ['*'] }
  const { id: consumerId } = await consumers.createConsumer({ consumer })
  key = (await tollgate.client(KeyService, adminKey).createKey({ consumerId })).key
  wires = wiresOf(tollgate.address)
})

afterAll(async () => {
  await tollgate?.stop()
  await backend?.close()
  await rm(dataDir, { recursive: true, force: true })
})

/** One call of the table. */
interface Cell {
  readonly fault: string
  readonly mode: 'whole' | 'stream'
  readonly when: 'firstAttempt' | 'everyAttempt'
  readonly wire: WireName
  readonly expected: FaultOutcome
}

const rows = faultTable.map((row) => {
  const cells: Cell[] = []
  for (const mode of ['whole', 'stream'] as const) {
    for (const when of ['firstAttempt', 'everyAttempt'] as const) {
      for (const wire of wireNames) cells.push({ fault: row.fault, mode, when, wire, expected: row[mode][when] })
    }
  }
  return [row.fault, cells] as const
})

describe('what comes of a fault is what the table says, in each protocol, in the ledger and at the backend', () => {
  test.each(rows)('%s', async (_fault, cells) => {
    // Each in a service of its own: breakers, rests and retry budgets are none of this table's.
    const told = await Promise.all(cells.map(async (cell) => ({ cell, told: await make(cell) })))
    for (const each of told) expect(shown(each.told), nameOf(each.cell)).toEqual(expectedOf(each.cell))
    await Promise.all(told.map(({ cell, told: { requestId, text } }) => checkBooks(cell, requestId, text)))
  })
})

describe('the error of a stream that broke off is, on the wire,', () => {
  const request = (name: string) =>
    create(StreamRequestRequestSchema, { serviceId: name, payload: chat('What is in the ledger?') })
  let service: string

  beforeAll(async () => {
    service = 'wire'
    await registerService(service, [endpoint(0, 'cut=3')])
  })

  /** Three tokens at least, and no message that tells of the end. */
  function expectNoEnd(messages: readonly StreamRequestResponse[]): void {
    const parts = messages.map(({ part }) => part.case)
    expect(parts[0]).toBe('start')
    expect(parts.filter((part) => part === 'eventData').length).toBeGreaterThanOrEqual(tokensBefore)
    expect(parts).not.toContain('end')
  }

  test('a status in the trailers of gRPC', async () => {
    const { status, frames, trailers } = await rawGrpc(tollgate.address, key, request(service))
    expect(status).toBe(200)
    expect(trailers).toMatchObject({ 'grpc-status': '14', 'grpc-status-details-bin': expect.stringMatching(/./) })
    expectNoEnd(frames.map(({ data }) => fromBinary(StreamRequestResponseSchema, data)))
  })

  test('a status in the trailer frame of gRPC-Web', async () => {
    const { frames } = await rawHttp1(tollgate.address, key, 'application/grpc-web+proto', request(service))
    const last = frames.at(-1)
    expect(last?.flags).toBe(0x80)
    expect(last?.data.toString()).toMatch(/^grpc-status: *14\r?$/m)
    expectNoEnd(frames.slice(0, -1).map(({ data }) => fromBinary(StreamRequestResponseSchema, data)))
  })

  test('an error in the end-of-stream message of Connect', async () => {
    const { status, frames } = await rawHttp1(tollgate.address, key, 'application/connect+json', request(service))
    expect(status).toBe(200)
    const last = frames.at(-1)
    expect(last?.flags).toBe(2)
    expect(parseJson(last?.data.toString() ?? '')).toMatchObject({ error: { code: 'unavailable' } })
    expectNoEnd(frames.slice(0, -1).map(({ data }) => fromJsonString(StreamRequestResponseSchema, data.toString())))
  })

  test('an event of the OpenAI API, after which comes no [DONE] and nothing else', async () => {
    const response = await fetch(`${tollgate.address}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: service, stream: true, messages: [{ role: 'user', content: 'x' }] }),
    })
    expect(response.status).toBe(200)
    const events = (await response.text()).split('\n\n')
    expect(events.pop()).toBe('')
    expect(events.pop()).toMatch(/^data: \{"error":\{.*"code":"backend_failed"\}\}$/)
    expect(events.length).toBeGreaterThanOrEqual(tokensBefore)
    for (const event of events) expect(event).toMatch(/^data: \{"id"/)
  })
})

test('the table is printed in docs/streams.md, row by row', () => {
  const docs = readFileSync(new URL('../docs/streams.md', import.meta.url), 'utf8').split('\n')
  const { faults, errors } = printFaultTable()
  expect(docs.filter((line) => /^\| `[a-z]/.test(line))).toEqual(faults)
  expect(docs.filter((line) => /^\| `[A-Z]/.test(line))).toEqual(errors)
})

test('after all of it, the books balance', async () => {
  expect(await tollgate.terminate()).toBe(0)
  const { child, output } = spawnTollgate(['books', '--backend-log', logPath], { TOLLGATE_DATA_DIR: dataDir })
  const [code] = await once(child, 'close')
  expect(output()).toContain('The books balance.')
  expect(code).toBe(0)
})

async function make({ fault, mode, when, wire }: Cell): Promise<Told> {
  const name = `${mode}-${when}-${wire}-${fault}`.toLowerCase().replace(/[^a-z0-9]+/g, '-')
  await registerService(name, [endpoint(0, fault), endpoint(1, when === 'firstAttempt' ? '' : fault)])
  return wires[wire]({ key, service: name, prompt: 'What is in the ledger?', mode })
}

async function registerService(name: string, endpoints: MessageInitShape<typeof EndpointSchema>[]): Promise<void> {
  await tollgate.client(Registry, adminKey).registerService({
    service: {
      name,
      version: '1.0.0',
      endpoints,
      pricing: {
        currency: 'USD',
        model: {
          case: 'perToken',
          value: {
            inputNanosPerMillion: BigInt(nanos.input * 1e6),
            outputNanosPerMillion: BigInt(nanos.output * 1e6),
          },
        },
      },
    },
  })
}

/** Deadlines only where a fault is one of time: none is to pass by accident. */
function endpoint(priority: number, fault: string): MessageInitShape<typeof EndpointSchema> {
  const address = `${backend.url}/v1/chat/completions?fault=${encodeURIComponent(`out=${tokens},${fault}`)}`
  const deadline = { seconds: 2n }
  return {
    url: address.replace(/%2C$/, ''),
    priority,
    ...(fault === 'silence' ? { headersTimeout: deadline } : {}),
    ...(fault.startsWith('slow-first-token') ? { firstTokenTimeout: deadline } : {}),
    ...(fault.startsWith('stall') ? { idleTimeout: deadline } : {}),
  }
}

/** What the caller saw, without what differs from call to call. */
interface Shown {
  readonly isSuccess: boolean
  readonly tokens: number
  readonly error: ToldError | undefined
}

function shown({ isSuccess, text, error }: Told): Shown {
  return { isSuccess, tokens: wordsOf(text), error }
}

function expectedOf({ fault, wire, expected }: Cell): Shown {
  if (expected.kind === 'answer') return { isSuccess: true, tokens, error: undefined }
  const { reason } = expected
  const { grpc, openai } = toldError(reason, fault)
  const isBroken = expected.kind === 'broken'
  const inOpenAi: ToldError = isBroken ? { kind: 'event', code: openai.code } : { kind: 'status', ...openai }
  const error: ToldError = wire === 'OpenAI API' ? inOpenAi : { kind: 'code', code: grpc, reason }
  return { isSuccess: false, tokens: isBroken ? tokensBefore : 0, error }
}

/** One record counts, and says what the caller got and the backend did; each attempt has a record and a line. */
async function checkBooks(cell: Cell, requestId: string, text: string): Promise<void> {
  const { expected, mode } = cell
  const what = nameOf(cell)
  const records = await recordsOf(requestId, expected.attempts)
  const counting = records.filter(({ requests }) => requests === 1)
  expect(counting, what).toHaveLength(1)
  const [record] = counting
  if (record === undefined) return
  const lines = readPracticeLog(logPath).filter((line) => line.requestId === requestId)
  const attemptIds = new Set(lines.map(({ attemptId }) => attemptId))
  expect(attemptIds.size, what).toBe(expected.attempts)
  expect(record.attempt, what).toBe(expected.attempts)
  // The line of an answer says what it is to send; of a call that the gate gave up, a second line says what it had sent.
  const [begun, ended = begun] = lines.filter(({ attemptId }) => attemptId === attemptIdOf(record.id, record.attempt))
  if (begun === undefined) throw new Error(`${what}: the backend does not know the attempt that is recorded`)

  const { input, output, costNanos, ...said } = facts(record)
  expect(costNanos, what).toBe(input * nanos.input + output * nanos.output)
  expect(said, what).toEqual(expectedRecord(expected))
  if (expected.kind === 'answer' && expected.usage === 'reported') {
    expect([input, output], what).toEqual([begun.usage?.promptTokens, begun.usage?.completionTokens])
    expect(output, what).toBe(wordsOf(text))
  } else if (mode === 'stream') {
    expect(output, what).toBe(wordsOf(text))
    // What follows a malformed event is sent in vain.
    if (begun.outcome !== 'malformed') expect(output, what).toBe(ended?.deliveredTokens)
  }
  for (const inVain of records.filter(({ requests }) => requests !== 1)) {
    expect(inVain, what).toMatchObject({ requests: 0, status: CallStatus.FAILED, cost: { amountNanos: 0n } })
    expect(inVain.usage?.totalTokens, what).toBe(0n)
  }
}

function expectedRecord(expected: FaultOutcome): Omit<Facts, 'input' | 'output' | 'costNanos'> {
  switch (expected.kind) {
    case 'answer': {
      const source = expected.usage === 'reported' ? UsageSource.PROVIDER : UsageSource.ESTIMATED
      return { status: CallStatus.SUCCEEDED, reason: '', source }
    }
    case 'error':
      return { status: CallStatus.FAILED, reason: expected.reason, source: UsageSource.NONE }
    case 'broken':
      return { status: CallStatus.FAILED, reason: expected.reason, source: UsageSource.PARTIAL }
  }
}

interface Facts {
  readonly status: CallStatus
  readonly reason: string
  readonly source: UsageSource | undefined
  readonly input: number
  readonly output: number
  readonly costNanos: number
}

function facts({ status, errorReason, usage, cost }: UsageRecord): Facts {
  return {
    status,
    reason: errorReason,
    source: usage?.source,
    input: Number(usage?.inputTokens ?? 0n),
    output: Number(usage?.outputTokens ?? 0n),
    costNanos: Number(cost?.amountNanos ?? 0n),
  }
}

async function recordsOf(requestId: string, count: number): Promise<UsageRecord[]> {
  const usage = tollgate.client(UsageService, key)
  return eventually(async () => {
    const { usageRecords } = await usage.listUsageRecords({ requestId })
    return usageRecords.length >= count && usageRecords
  })
}

function nameOf({ fault, mode, when, wire }: Cell): string {
  return `${fault}, ${mode}, ${when}, ${wire}`
}

function wordsOf(text: string): number {
  return text === '' ? 0 : text.trim().split(' ').length
}
