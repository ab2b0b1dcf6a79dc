import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { pinDescendants, spawnPinned, stopChild } from './children.ts'
import { type Governance, governed, provision } from './governance.ts'
import { scrape } from './metrics.ts'

/** A running gate with a consumer, a key and services of the benchmark's own. */
export interface Gate {
  readonly pid: number
  /** Scheme, host and port. */
  readonly origin: string
  /** Of the service "bench". */
  readonly serviceId: string
  readonly consumerId: string
  readonly key: string
  readonly adminKey: string
  /** Ends it, with its embedded Postgres. */
  stop(): Promise<void>
}

/** What a gate is started with, beside its defaults. */
export interface GateOptions {
  /** Core of its embedded Postgres. Default: its own. */
  readonly postgresCpu?: number | undefined
  /** What it governs calls with; {@link governed} without it, which is everything. */
  readonly governance?: Governance
  readonly env?: Readonly<Record<string, string>>
}

const startMs = 60_000
/** As in package.json and the image. */
const newObjects = '--max-semi-space-size=32'
const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * Starts `node <main> serve` with its data and its log in a scratch folder, and provisions it with services whose backend is
 * `backendUrl`. Throws with the gate's output when it fails.
 */
export async function startGate(
  main: string,
  dataDir: string,
  backendUrl: string,
  cpu: number,
  { governance = governed, env = {}, postgresCpu = cpu }: GateOptions = {},
): Promise<Gate> {
  const adminKey = randomBytes(32).toString('hex')
  const origin = `http://127.0.0.1:${await freePort()}`
  const log = join(dataDir, 'output.log')
  const output = openSync(log, 'a')
  const child = spawnPinned([newObjects, main, 'serve'], cpu, {
    cwd: root,
    output,
    env: {
      ...process.env,
      HOST: '127.0.0.1',
      PORT: new URL(origin).port,
      TOLLGATE_DATA_DIR: dataDir,
      TOLLGATE_ADMIN_KEY: adminKey,
      // As many as the bare proxy has: 512 streams at once need 512 connections to their one backend.
      BACKEND_CONNECTIONS_PER_HOST: '1000',
      ...governance.env,
      ...env,
    },
  })
  closeSync(output)
  const said = (): string => readFileSync(log, 'utf8').slice(-4_000)
  const until = Date.now() + startMs
  while (!(await isReady(origin))) {
    if (child.exitCode !== null) throw new Error(`the gate left with code ${child.exitCode}:\n${said()}`)
    if (Date.now() > until) throw new Error(`the gate did not start in ${startMs} ms:\n${said()}`)
    await sleep(50)
  }
  if (postgresCpu !== cpu) pinDescendants(child.pid ?? 0, postgresCpu)
  const tenant = await provision({ origin, adminKey }, backendUrl, governance)
  const endScraping = governance.isOn ? scrape(origin) : (): void => {}
  const stop = async (): Promise<void> => {
    endScraping()
    await stopChild(child)
  }
  return { pid: child.pid ?? 0, origin, adminKey, ...tenant, stop }
}

async function isReady(origin: string): Promise<boolean> {
  try {
    const answer = await fetch(`${origin}/ready`, { signal: AbortSignal.timeout(1_000) })
    await answer.body?.cancel()
    return answer.ok
  } catch {
    return false
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(address !== null && typeof address !== 'string' ? address.port : 0))
    })
  })
}
