/**
 * `tollgate dev`: the whole gate with embedded defaults, two practice backends and demo data, on loopback.
 *
 * The demo's facts stand in `demo.json` of the data folder, readable by the owner alone: a second start takes keys and
 * ports from there and keeps all data.
 */
import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type App, startApp } from '../app.ts'
import type { Config } from '../config.ts'
import { type PracticeBackend, startPracticeBackend } from '../practice/backend.ts'
import { banner } from './banner.ts'
import { type DemoFacts, readFacts, writeFacts } from './facts.ts'
import { demoIds, seedDemo } from './seed.ts'

const slowDelayMs = 2_000

/** Starts everything, writes demo.json, and prints the banner to `out`. */
export async function startDemo(config: Config, out: { write(text: string): unknown }): Promise<App> {
  const file = join(config.dataDir, 'demo.json')
  await mkdir(config.dataDir, { recursive: true })
  const saved = await readFacts(file)
  const adminKey = config.access.adminKey ?? saved?.adminKey ?? randomBytes(32).toString('base64url')
  const backends: PracticeBackend[] = []
  const closeBackends = async (): Promise<void> => {
    await Promise.all(backends.map((backend) => backend.close()))
  }
  try {
    for (const defaultDelayMs of [0, slowDelayMs]) {
      const logPath = join(config.dataDir, defaultDelayMs === 0 ? 'backend.jsonl' : 'slow-backend.jsonl')
      backends.push(await startPracticeBackend({ host: '127.0.0.1', port: 0, logPath, defaultDelayMs }))
    }
    const [backend, slowBackend] = backends.map(({ url }) => `${url}/v1/chat/completions`)
    let keys = { key: saved?.key ?? '', limitedKey: saved?.limitedKey ?? '' }
    const app = await startApp(
      { ...config, access: { ...config.access, adminKey } },
      {
        beforeServing: async (sql, hasher) => {
          keys = await seedDemo(sql, hasher, { backend: backend ?? '', slowBackend: slowBackend ?? '' }, keys)
        },
      },
    )
    const facts: DemoFacts = { address: app.address, grpcAddress: app.grpcAddress, ...demoIds, ...keys, adminKey }
    await writeFacts(file, facts)
    out.write(banner(facts, file))
    return {
      ...app,
      async close() {
        await app.close()
        await closeBackends()
      },
    }
  } catch (error) {
    await closeBackends()
    throw error
  }
}
