/**
 * `tollgate dev`: the whole gate with embedded defaults, two practice backends and demo data, on loopback.
 *
 * The demo's facts stand in `demo.json` of the data folder, readable by the owner alone: a second start takes keys and
 * ports from there and keeps all data.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type App, startApp } from '../app.ts'
import type { Config } from '../config.ts'
import { type PracticeBackend, startPracticeBackend } from '../practice/backend.ts'
import { banner } from './banner.ts'
import { demoIds, seedDemo } from './seed.ts'

/** What scripts need to know of a running demo. */
export interface DemoFacts {
  /** With scheme. */
  readonly address: string
  /** host:port. */
  readonly grpcAddress: string
  readonly consumerId: string
  readonly serviceId: string
  /** Its backend takes 2 s. */
  readonly slowServiceId: string
  /** Of an enterprise consumer. */
  readonly key: string
  /** Of a basic consumer. */
  readonly limitedKey: string
  readonly adminKey: string
}

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

async function readFacts(file: string): Promise<Partial<Record<keyof DemoFacts, string>> | undefined> {
  try {
    const facts: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof facts !== 'object' || facts === null) return undefined
    return Object.fromEntries(Object.entries(facts).filter(([, value]) => typeof value === 'string'))
  } catch {
    return undefined
  }
}

async function writeFacts(file: string, facts: DemoFacts): Promise<void> {
  await writeFile(`${file}.new`, `${JSON.stringify(facts, null, 2)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}
