import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { Code, ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService } from '../gen/marketplace/v1/consumption_pb.ts'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { readPracticeLog } from '../src/practice/log.ts'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { demoFacts, scratchDir, startTollgate, type Tollgate } from './support/tollgate.ts'
import { grpcurl } from './support/tools.ts'

const run = promisify(execFile)

describe.each(['source', 'bundle'] as const)('tollgate dev, from the %s', (entry) => {
  let dataDir: string
  let tollgate: Tollgate
  let facts: Record<string, string>

  beforeAll(async () => {
    dataDir = await scratchDir()
    tollgate = await startTollgate({ command: 'dev', dataDir, entry })
    facts = await demoFacts(tollgate)
  })

  afterAll(async () => {
    await tollgate.stop()
    await rm(dataDir, { recursive: true, force: true })
  })

  async function records(requestId: string): Promise<number> {
    const usage = tollgate.client(UsageService, facts.key ?? '')
    return (await usage.listUsageRecords({ requestId })).usageRecords.length
  }

  test('writes every fact that scripts need', () => {
    expect(Object.keys(facts).sort()).toEqual(
      ['address', 'grpcAddress', 'consumerId', 'serviceId', 'slowServiceId', 'key', 'limitedKey', 'adminKey'].sort(),
    )
    expect(facts.address).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    expect(facts.grpcAddress).toMatch(/^127\.0\.0\.1:\d+$/)
  })

  test('prints commands that work as they stand', async () => {
    const commands = await eventually(() => {
      const found = pastedCommands(tollgate.output())
      return found.length >= 4 ? found : undefined
    })
    const grpcurlFolder = dirname(await grpcurl())
    for (const command of commands) {
      const { stdout } = await run('bash', ['-c', `PATH="$PATH:${grpcurlFolder}"; ${command}`])
      expect(stdout).toMatch(/"request_id"|"requestId"|"usageRecords"/)
    }
  })

  test('answers with usage, exact cost, latency and the id of its record', async () => {
    const consumption = tollgate.client(ConsumptionService, facts.key ?? '')
    const answer = await consumption.routeRequest({ serviceId: facts.serviceId ?? '', payload: chat('hello') })
    expect(answer.usage?.totalTokens).toBe((answer.usage?.inputTokens ?? 0n) + (answer.usage?.outputTokens ?? 0n))
    expect(answer.usage?.totalTokens).toBeGreaterThan(0n)
    const parts = answer.cost?.breakdown.reduce((sum, part) => sum + part.amountNanos, 0n)
    expect(answer.cost).toMatchObject({ currency: 'USD', priceVersion: 'demo', amountNanos: parts })
    expect(answer.servedBy).toMatchObject({ serviceId: facts.serviceId, attempt: 1 })
    expect(JSON.parse(new TextDecoder().decode(answer.responseData))).toHaveProperty('choices')
    await eventually(async () => (await records(answer.requestId)) === 1)
  })

  test('has an answered call in the ledger exactly once after kill -9, and keeps its data and keys', async () => {
    const consumption = tollgate.client(ConsumptionService, facts.key ?? '')
    const ids: string[] = []
    for (let i = 0; i < 5; i += 1) {
      const answer = await consumption.routeRequest({ serviceId: facts.serviceId ?? '', payload: chat(`crash ${i}`) })
      ids.push(answer.requestId)
    }
    await tollgate.kill9()
    tollgate = await startTollgate({ command: 'dev', dataDir, entry })
    const before = facts
    facts = await demoFacts(tollgate)
    expect({ ...facts, address: '', grpcAddress: '' }).toEqual({ ...before, address: '', grpcAddress: '' })
    for (const id of ids) await eventually(async () => (await records(id)) === 1, { what: () => `the record of ${id}` })
    const log = await readPracticeLog(join(dataDir, 'backend.jsonl'))
    for (const id of ids) expect(log.filter((line) => line.requestId === id)).toHaveLength(1)
  })

  test('gives up at the deadline, and the backend and the ledger know', async () => {
    const consumption = tollgate.client(ConsumptionService, facts.key ?? '')
    const error = await consumption
      .routeRequest({ serviceId: facts.slowServiceId ?? '', payload: chat('slow') }, { timeoutMs: 150 })
      .catch((failure: unknown) => ConnectError.from(failure))
    expect(error).toBeInstanceOf(ConnectError)
    expect((error as ConnectError).code).toBe(Code.DeadlineExceeded)
    const usage = tollgate.client(UsageService, facts.key ?? '')
    const record = await eventually(async () => {
      const { usageRecords } = await usage.listUsageRecords({})
      return usageRecords.find((candidate) => candidate.serviceId === facts.slowServiceId)
    })
    expect(record).toMatchObject({ errorReason: 'DEADLINE_EXCEEDED', attempt: 1, cost: { amountNanos: 0n } })
    await eventually(async () => {
      const lines = await readPracticeLog(join(dataDir, 'slow-backend.jsonl'))
      return lines.some((line) => line.requestId === record.requestId && line.outcome === 'aborted')
    })
  })

  test('on SIGTERM lets a call end well and leaves with 0', async () => {
    const consumption = tollgate.client(ConsumptionService, facts.key ?? '')
    const slow = consumption.routeRequest({ serviceId: facts.slowServiceId ?? '', payload: chat('last words') })
    const log = join(dataDir, 'slow-backend.jsonl')
    await eventually(async () => {
      const response = await fetch(`${facts.address}/metrics`)
      return /http_requests_in_flight 1/.test(await response.text())
    })
    const code = tollgate.terminate()
    const answer = await slow
    expect(answer.usage?.totalTokens).toBeGreaterThan(0n)
    expect(await code).toBe(0)
    expect((await readPracticeLog(log)).some((line) => line.requestId === answer.requestId)).toBe(true)
    tollgate = await startTollgate({ command: 'dev', dataDir, entry })
    facts = await demoFacts(tollgate)
    expect(await records(answer.requestId)).toBe(1)
  })
})

/** Every command of the banner, with its continuation lines. */
function pastedCommands(output: string): string[] {
  return [...output.matchAll(/^ {2}((?:curl|npx|grpcurl) (?:.*\\\n)*.*)$/gm)].map((match) => match[1] ?? '')
}
