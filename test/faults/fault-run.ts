/**
 * A fault run: servers are broken under load, everything is healed, and when all has come to rest the books are judged.
 *
 *     world → load ┐
 *     schedule ────┴→ heal → rest → `tollgate books`, oracles → verdict
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readPracticeLog } from '../../src/practice/log.ts'
import { eventually } from '../support/eventually.ts'
import { type BooksReport, booksAtRest } from './books-command.ts'
import { isRefusal } from './call-plan.ts'
import { type DisturbedLoad, runDisturbedLoad } from './disturbed-load.ts'
import { type LedgerRow, readLedgerRows, readQuarantine } from './ledger-rows.ts'
import { type Findings, judge } from './oracles.ts'
import type { Scenario } from './scenarios.ts'
import type { Budget } from './tenants.ts'
import { type Sample, watch } from './watch.ts'
import { startWorld, type World } from './world.ts'

export interface FaultRunOptions {
  readonly seed: number
  readonly scenario: Scenario
  /** Calls at once; default 32. */
  readonly callers?: number
  /** Added to the gateways' environment. */
  readonly env?: Readonly<Record<string, string>>
  /** The run is given up after this; default five minutes and 50 ms a call. */
  readonly limitMs?: number
  /** Told what happens, line by line. */
  readonly say?: (line: string) => void
  /** Ends the run early, with everything ended; it rejects then. */
  readonly signal?: AbortSignal
}

export interface FaultRunResult extends DisturbedLoad {
  readonly rows: readonly LedgerRow[]
  readonly books: BooksReport
  readonly budgets: readonly Budget[]
  /** Calls that a budget refused. */
  readonly refused: number
  readonly findings: Findings
  readonly samples: readonly Sample[]
  readonly loadMs: number
  readonly restMs: number
  /** Everything that is wrong; empty for a run that proves what it should. */
  readonly wrong: readonly string[]
  /** Where logs and stores are kept; undefined when nothing is wrong. */
  readonly folder: string | undefined
}

/** A call that nobody ended is recorded 15 s after its deadline; the rest is for the drain. */
const leaseGraceMs = 15_000
const drainMs = 15_000

/** Runs it to its verdict. Rejects when it is interrupted, takes too long, or a server cannot be started again. */
export async function runFaults(options: FaultRunOptions): Promise<FaultRunResult> {
  const { seed, scenario, callers = 32, env = {}, say = () => {} } = options
  const limit = AbortSignal.timeout(options.limitMs ?? 300_000 + 50 * scenario.calls)
  const signal = options.signal === undefined ? limit : AbortSignal.any([options.signal, limit])
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-faults-'))
  // Postgres, which never runs as root, must reach its part of it.
  await chmod(folder, 0o755)
  let isKept = true
  let world: World | undefined
  try {
    world = await startWorld({ folder, env: { ...scenario.env, ...env }, calls: scenario.calls, signal })
    const result = await runIn(world, { seed, scenario, callers, say, signal })
    isKept = result.wrong.length > 0
    return { ...result, folder: isKept ? folder : undefined }
  } catch (error) {
    isKept = options.signal?.aborted !== true
    if (!isKept) throw error
    const what = limit.aborted ? 'the run took too long' : 'the run could not go on'
    throw new Error(`${what}; logs and stores are kept in ${folder}`, { cause: error })
  } finally {
    if (isKept) await world?.keepOutputs()
    await world?.close()
    if (!isKept) await rm(folder, { recursive: true, force: true })
  }
}

type Run = Required<Pick<FaultRunOptions, 'seed' | 'scenario' | 'callers' | 'say' | 'signal'>>

async function runIn(world: World, run: Run): Promise<Omit<FaultRunResult, 'folder'>> {
  const { scenario, signal, say } = run
  const patienceMs = scenario.callTimeoutMs + leaseGraceMs + drainMs
  const watching = watch(world.gateways)
  const begunMs = Date.now()
  try {
    const disturbed = await runDisturbedLoad(world, run)
    const loadMs = Date.now() - begunMs
    const { calls, failedTries, answeredDuring } = disturbed
    say(`${calls.length} calls in ${(loadMs / 1_000).toFixed(1)} s; everything is healed, and comes to rest`)
    const books = await booksAtRest(world.storeEnv, world.backendLog, patienceMs, signal)
    const restMs = Date.now() - begunMs - loadMs
    // A drain that failed says so until its next try.
    await eventually(() => restless(watching.samples).length === 0, { timeoutMs: drainMs }).catch(() => {})

    const rows = await readLedgerRows(world.sql)
    const backend = readPracticeLog(world.backendLog)
    const quarantine = await readQuarantine(world.sql)
    const { keysAreKept } = scenario
    const { budgets } = world
    const held = scenario.budgetsHold ? budgets : []
    const findings = judge({ calls, rows, backend, quarantine, budgets: held, keysAreKept })
    const { samples } = watching
    const refused = calls.filter(({ plan, failure }) => isRefusal(plan, failure?.reason)).length
    const wrong = [
      ...(books.exitCode === 0 ? [] : [`tollgate books ended with ${books.exitCode}`]),
      ...books.differences.map((line) => `books: ${line}`),
      ...(books.unfinished === 0 ? [] : [`${books.unfinished} tokens are still reserved or on their way`]),
      ...Object.entries(findings).flatMap(([kind, lines]: [string, readonly string[]]) =>
        lines.map((line) => `${kind}: ${line}`),
      ),
      ...world.gateways.flatMap((gateway) =>
        gateway.crashes().map((text) => `crash: a gateway ended by itself: ${text}`),
      ),
      ...restless(samples).map((line) => `health: ${line}`),
      ...scenario.missed({ answeredDuring, failedTries, refused, samples }).map((line) => `missed: ${line}`),
    ]
    return { ...disturbed, rows, books, budgets, refused, findings, samples, loadMs, restMs, wrong }
  } finally {
    await watching.stop()
  }
}

/** Gateways that do not say that all is well, at the last look. */
function restless(samples: readonly Sample[]): string[] {
  const last = samples.at(-1)?.health ?? []
  return last.length === 2 && last.every((status) => status === 'ok') ? [] : [`in the end it is ${last.join(', ')}`]
}
