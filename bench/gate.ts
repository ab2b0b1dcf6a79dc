import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { spawnPinned } from './children.ts'

/** A running gate with a consumer, a key and a service of the benchmark's own. */
export interface Gate {
  readonly pid: number
  /** Scheme, host and port. */
  readonly origin: string
  readonly serviceId: string
  readonly key: string
  readonly adminKey: string
}

const startMs = 60_000
const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * Starts `node <main> dev` with its data in a scratch folder and registers `backendUrl` as a priced service, for a consumer whose limits
 * are checked on every call like anybody's but are too high to refuse. Throws with the gate's output when it fails.
 */
export async function startGate(main: string, dataDir: string, backendUrl: string, cpu: number): Promise<Gate> {
  const child = spawnPinned([main, 'dev'], cpu, {
    cwd: root,
    env: { ...process.env, PORT: String(await freePort()), TOLLGATE_DATA_DIR: dataDir },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString('utf8')).slice(-4_000)
    })
  const facts = join(dataDir, 'demo.json')
  const until = Date.now() + startMs
  while (!existsSync(facts)) {
    if (child.exitCode !== null) throw new Error(`the gate left with code ${child.exitCode}:\n${output}`)
    if (Date.now() > until) throw new Error(`the gate did not start in ${startMs} ms:\n${output}`)
    await sleep(50)
  }
  const { address, adminKey } = readDemo(facts)
  const provisioned = await provision(address, adminKey, backendUrl)
  return { pid: child.pid ?? 0, origin: address, adminKey, ...provisioned }
}

/** Calls an RPC of the gate in Connect JSON; throws with its answer unless it succeeds. */
export async function callGate(
  origin: string,
  key: string,
  method: string,
  request: object,
): Promise<Record<string, unknown>> {
  const answer = await fetch(`${origin}/marketplace.v1.${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify(request),
    signal: AbortSignal.timeout(10_000),
  })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`${method} answered ${answer.status}: ${text.slice(0, 1_000)}`)
  return toObject(JSON.parse(text))
}

/** Registers a priced service; its backend is asked for `model`. Returns its id. */
export async function registerService(
  { origin, adminKey }: Pick<Gate, 'origin' | 'adminKey'>,
  name: string,
  backendUrl: string,
  model = '',
): Promise<string> {
  const { id } = await callGate(origin, adminKey, 'Registry/RegisterService', {
    service: {
      name,
      version: '1.0.0',
      endpoints: [{ url: `${backendUrl}/v1/chat/completions`, protocol: 'PROTOCOL_OPENAI', model }],
      pricing: {
        currency: 'USD',
        perToken: { inputNanosPerMillion: '2500000000', outputNanosPerMillion: '10000000000' },
      },
    },
  })
  if (typeof id !== 'string') throw new Error('the gate gave no id')
  return id
}

async function provision(
  origin: string,
  adminKey: string,
  backendUrl: string,
): Promise<{ serviceId: string; key: string }> {
  const serviceId = await registerService({ origin, adminKey }, 'bench', backendUrl)
  const organization = await callGate(origin, adminKey, 'ConsumerService/CreateOrganization', {
    organization: { name: 'bench' },
  })
  const consumer = await callGate(origin, adminKey, 'ConsumerService/CreateConsumer', {
    consumer: {
      organizationId: organization.id,
      name: 'bench',
      tier: 'TIER_ENTERPRISE',
      grantedServices: ['*'],
      overrides: { requestsPerSecond: '1000000', requestBurst: '1000000', tokensPerMonth: '1000000000000' },
    },
  })
  const { key } = await callGate(origin, adminKey, 'KeyService/CreateKey', { consumerId: consumer.id, name: 'bench' })
  if (typeof key !== 'string') throw new Error('the gate gave no key')
  return { serviceId, key }
}

function readDemo(path: string): { address: string; adminKey: string } {
  const { address, adminKey } = toObject(JSON.parse(readFileSync(path, 'utf8')))
  if (typeof address !== 'string' || typeof adminKey !== 'string') throw new Error(`${path} lacks address or adminKey`)
  return { address, adminKey }
}

function toObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
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
