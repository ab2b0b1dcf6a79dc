import { statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { checkGoverned } from '../check-governed.ts'
import { readCpu } from '../children.ts'
import { growControlPlane, growLedger } from '../crowded-database.ts'
import type { Gate } from '../gate.ts'
import type { Finding, Part } from '../part.ts'
import { measureInTurn, type Result } from '../rounds.ts'
import { sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { startStores } from '../stores.ts'
import { figure, percent, type Table } from '../table.ts'
import { grpcTarget, openaiTarget, proxyName } from '../targets.ts'
import { loadCpu, type World } from '../world.ts'

/**
 * Whether a call costs the same however much there is: one gate on a Postgres that is filled up between measurements,
 * first with services, consumers and keys, then with usage records.
 */
export const flat: Part = { name: 'flat', isDefault: false, run }

const callers = 64
const followMs = 120_000
const idleSeconds = 5
/** What ten million records take on disk, with their indexes, twice. */
const roomBytes = 20e9

interface Step {
  readonly what: string
  /** CPU time of the gate while nobody calls, milliseconds a second. */
  readonly idleMs: number
  readonly results: readonly Result[]
}

async function run(world: World): Promise<Finding> {
  const stores = await startStores(loadCpu, { redis: false })
  const gate = await world.startGate({ env: stores.env })
  await checkGoverned(gate)
  const targets = [world.proxy, openaiTarget(gate), grpcTarget(gate)]
  const measure = async (what: string): Promise<Step> => {
    process.stderr.write(`${what}:\n`)
    const scenes = targets.map((target) => sceneOf(target, services.plain, callers, world.effort))
    const idleMs = await idleCpu(gate.pid)
    return { what, idleMs, results: await measureInTurn(world, scenes, world.effort.rounds) }
  }
  try {
    const steps: Step[] = []
    for (const count of world.isQuick ? [10, 1_000] : [10, 1_000, 10_000]) {
      await growControlPlane(stores.sql, count)
      await follows(gate, count)
      steps.push(await measure(`${count} services, consumers and keys`))
    }
    for (const rows of ledgerSizes(world)) {
      await growLedger(stores.sql, rows)
      steps.push(await measure(`${rows} usage records`))
    }
    return { results: steps.flatMap(({ results }) => results), tables: [tableOf(steps)], figures: figuresOf(steps) }
  } finally {
    await gate.stop()
    await stores.stop()
  }
}

/** Ten million where there is room for them, and nothing else was asked for. */
function ledgerSizes({ ledgerRows, isQuick }: World): readonly number[] {
  if (ledgerRows !== undefined) return [ledgerRows]
  if (isQuick) return [100_000]
  const { bavail, bsize } = statfsSync(tmpdir())
  return bavail * bsize > roomBytes ? [1_000_000, 10_000_000] : [1_000_000]
}

/** Waits until the gate knows so many services. */
async function follows({ origin, key }: Gate, count: number): Promise<void> {
  const untilMs = Date.now() + followMs
  while (Date.now() < untilMs) {
    const answer = await fetch(`${origin}/v1/models`, { headers: { authorization: `Bearer ${key}` } })
    const { data } = Object(await answer.json())
    if (Array.isArray(data) && data.length >= count) return
    await sleep(500)
  }
  throw new Error(`the gate does not see ${count} services`)
}

async function idleCpu(pid: number): Promise<number> {
  const before = readCpu(pid)?.ownUs ?? Number.NaN
  await sleep(idleSeconds * 1_000)
  return ((readCpu(pid)?.ownUs ?? Number.NaN) - before) / 1_000 / idleSeconds
}

function cpuOf({ results }: Step, name: string): number {
  return results.find(({ scene }) => scene.target.name === name)?.median.cpuUs ?? Number.NaN
}

/** Each row beside the first one; a gate's growth is told against that of the proxy, which has nothing to do with it. */
function tableOf(steps: readonly Step[]): Table {
  const names = namesIn(steps)
  return {
    title: 'Cost of a call with much in the database, CPU µs',
    columns: ['with', proxyName, ...names.flatMap((name) => [name, 'of the first']), 'idle, ms a second'],
    rows: steps.map((step) => [
      step.what,
      figure(cpuOf(step, proxyName)),
      ...names.flatMap((name) => [figure(cpuOf(step, name)), percent(growth(steps, step, name))]),
      figure(step.idleMs),
    ]),
  }
}

function namesIn([first]: readonly Step[]): readonly string[] {
  return (first?.results ?? []).map(({ scene }) => scene.target.name).filter((name) => name !== proxyName)
}

function growth([first]: readonly Step[], step: Step, name: string): number {
  const besideProxy = (of: Step): number => cpuOf(of, name) / cpuOf(of, proxyName)
  return first === undefined ? Number.NaN : besideProxy(step) / besideProxy(first)
}

function figuresOf(steps: readonly Step[]): Finding['figures'] {
  return Object.fromEntries(
    steps.flatMap((step) => namesIn(steps).map((name) => [`${name}, ${step.what}`, growth(steps, step, name)])),
  )
}
