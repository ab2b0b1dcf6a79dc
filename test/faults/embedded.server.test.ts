import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { startPracticeBackend } from '../../src/practice/backend.ts'
import { readPracticeLog } from '../../src/practice/log.ts'
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts'
import { connectPostgres } from '../../src/storage/postgres.ts'
import { startCutProxy } from '../support/cut-proxy.ts'
import { silentLog } from '../support/postgres-server.ts'
import { makeTenant } from '../support/tenant.ts'
import { scratchDir } from '../support/tollgate.ts'
import { askBooks } from './books-command.ts'
import { runDisturbedLoad } from './disturbed-load.ts'
import { readLedgerRows, readQuarantine } from './ledger-rows.ts'
import { judge } from './oracles.ts'
import type { Scenario } from './scenarios.ts'
import type { Fault } from './schedule.ts'
import { startGateway } from './servers.ts'

const seed = Number(process.env.TOLLGATE_TEST_SEED ?? Date.now() % 1_000_000_000)
const adminKey = 'an-administrator-key-for-tests-only-0003'
const kill = (atCall: number): Fault => ({ atCall, target: 'gateway-a', action: 'kill', forMs: 0 })
const scenario: Scenario = {
  calls: 400,
  schedule: [kill(100 + (seed % 50)), kill(250 + (seed % 50))],
  backendFaults: true,
  callTimeoutMs: 20_000,
  keysAreKept: true,
  budgetsHold: true,
  missed: () => [],
}

test(`tollgate dev keeps what it answered when it is killed twice, seed ${seed}`, async () => {
  const folder = await scratchDir()
  const dataDir = join(folder, 'data')
  await mkdir(dataDir)
  const { signal } = new AbortController()
  const logPath = join(folder, 'backend.jsonl')
  const backend = await startPracticeBackend({ logPath })
  const env = { TOLLGATE_ADMIN_KEY: adminKey, BREAKER_FAILURES: '10000' }
  const gateway = await startGateway({ command: 'dev', dataDir, env }, signal)
  const proxy = await startCutProxy({
    upstream: () => ({ host: '127.0.0.1', port: Number(new URL(gateway.current().address).port) }),
  })
  try {
    const url = `${backend.url}/v1/chat/completions`
    const plenty = { requestsPerSecond: 100_000n, requestBurst: 100_000n, tokensPerMonth: 1_000_000_000n }
    const tenant = await makeTenant(gateway.current(), adminKey, 'embedded', url, plenty)
    const stage = {
      tenants: [tenant],
      budgets: [],
      addresses: [`http://127.0.0.1:${proxy.port}`],
      targets: { 'gateway-a': { server: gateway, proxy } },
    }
    const { calls } = await runDisturbedLoad(stage, { seed, scenario, callers: 16, say: () => {}, signal })
    const { serviceId, key } = tenant
    const { used } = await gateway.current().client(ConsumptionService, key).checkQuota({ serviceId })
    expect(await gateway.terminate()).toBe(0)
    expect(gateway.crashes()).toEqual([])

    expect((await askBooks({ TOLLGATE_DATA_DIR: dataDir }, logPath)).differences).toEqual([])
    // Its own Postgres went with it: it is started once more, to be read.
    const postgres = await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), log: silentLog })
    const sql = connectPostgres({ ...postgres, log: silentLog })
    try {
      const rows = await readLedgerRows(sql)
      const findings = judge({
        calls,
        rows,
        backend: readPracticeLog(logPath),
        quarantine: await readQuarantine(sql),
        budgets: [],
        keysAreKept: true,
      })
      expect(findings).toEqual({ lost: [], double: [], different: [], passed: [], failed: [] })
      expect(rows.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(Number(used))
    } finally {
      await sql.end(2_000)
      await postgres.stop()
    }
  } finally {
    await gateway.terminate()
    await proxy.close()
    await backend.close()
    await rm(folder, { recursive: true, force: true })
  }
})
