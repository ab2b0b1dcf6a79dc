import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startChild, stopChildren, urlOf } from './children.ts'
import { type Gate, type GateOptions, startGate } from './gate.ts'
import type { Effort } from './rounds.ts'
import { type Stage, sceneOf, takeSample } from './sample.ts'
import { type BenchService, services } from './services.ts'
import { connectTarget, directName, grpcTarget, openaiTarget, plainTarget, proxyName, type Target } from './targets.ts'

/** Core of the gate and of the proxy; backend, load generator and, unless the core is shared, Postgres have the other one. */
export const gateCpu = 0
export const loadCpu = 1

const runInMs = 4_000
const quickRunInMs = 500
const runInCallers = 64

/** What all parts share: a stage, both baselines, and gates that are started when a part first asks for them. */
export interface World extends Stage {
  readonly effort: Effort
  readonly isQuick: boolean
  /** Of the ledger that `flat` fills; undefined: as many as there is room for. */
  readonly ledgerRows: number | undefined
  readonly backendUrl: string
  readonly direct: Target
  readonly proxy: Target
  /** The gate that governs everything, with embedded stores; it was seen to govern before it is measured. */
  gate(): Promise<Gate>
  /** Another gate, with a data folder of its own; the part stops it. */
  startGate(options: GateOptions): Promise<Gate>
  /** A folder that goes when the world ends. */
  scratch(): string
  close(): Promise<void>
}

export interface WorldOptions {
  readonly effort: Effort
  readonly isQuick: boolean
  readonly ledgerRows: number | undefined
  /** Whether gates share their core with their embedded Postgres; else it is where backend and load generator are. */
  readonly isCoreShared: boolean
  /** `src/main.ts`, or the bundle. */
  readonly main: string
  /** Throws unless the gate governs. */
  readonly check: (gate: Gate) => Promise<void>
}

/** Starts backend, proxy and load generator. */
export async function openWorld(options: WorldOptions): Promise<World> {
  const { effort, isQuick, ledgerRows, main, check } = options
  const postgresCpu = options.isCoreShared ? gateCpu : loadCpu
  const folders: string[] = []
  const scratch = (): string => {
    const folder = mkdtempSync(join(tmpdir(), 'tollgate-bench-'))
    // The embedded Postgres runs as somebody else when the benchmark runs as root.
    chmodSync(folder, 0o755)
    folders.push(folder)
    return folder
  }
  const backend = await startChild('backend.ts', [], loadCpu)
  const backendUrl = urlOf(backend)
  const proxy = await startChild('bare-proxy.ts', [backendUrl], gateCpu)
  const load = await startChild('load.ts', [], loadCpu)
  const proxied = plainTarget(proxyName, proxy.pid, urlOf(proxy))
  const runIn = async (target: Target, service: BenchService): Promise<void> => {
    const effort = { warmupMs: 0, durationMs: isQuick ? quickRunInMs : runInMs }
    await takeSample({ load, backend }, sceneOf(target, service, runInCallers, effort))
  }
  // A cold process measures the compiler: of a gate's first ten seconds a call costs half as much again.
  for (const service of [services.plain, services.stream]) await runIn(proxied, service)
  const start = async (changes: GateOptions): Promise<Gate> => {
    const started = await startGate(main, scratch(), backendUrl, gateCpu, { postgresCpu, ...changes })
    for (const target of [openaiTarget(started), connectTarget(started), grpcTarget(started)])
      await runIn(target, services.plain)
    for (const target of [openaiTarget(started), grpcTarget(started)]) await runIn(target, services.stream)
    return started
  }
  let gate: Promise<Gate> | undefined
  return {
    effort,
    isQuick,
    ledgerRows,
    load,
    backend,
    backendUrl,
    direct: plainTarget(directName, undefined, backendUrl),
    proxy: proxied,
    gate: () => {
      gate ??= start({}).then(async (started) => {
        await check(started)
        return started
      })
      return gate
    },
    startGate: start,
    scratch,
    close: async () => {
      await stopChildren()
      for (const folder of folders) rmSync(folder, { recursive: true, force: true })
    },
  }
}
