import { type Child, readCpu } from './children.ts'
import { isLoadReport, type Latencies, type LoadOrder, type LoadReport } from './orders.ts'
import { median } from './report.ts'
import type { BenchService } from './services.ts'
import type { Target } from './targets.ts'

/** One thing to measure: so many callers of a service, by a way. */
export interface Scene {
  readonly target: Target
  readonly service: BenchService
  readonly callers: number
  readonly warmupMs: number
  readonly durationMs: number
}

/** The figures of one measurement, or the medians of several. NaN for what a scene does not have. */
export interface Sample extends Latencies {
  readonly perSecond: number
  /** All that ended well, those of the warm-up too. */
  readonly calls: number
  /** CPU time a call of the process between caller and backend, all its threads, in microseconds. */
  readonly cpuUs: number
  /** The same of its child processes: the embedded Postgres. */
  readonly childrenCpuUs: number
  /** Share of the time that its main thread could have run, while something else had its core. */
  readonly waited: number
  /** CPU time a call of the load generator. */
  readonly loadCpuUs: number
}

const maxCalls = 1_000_000

/** A scene as long as the effort says. */
export function sceneOf(
  target: Target,
  service: BenchService,
  callers: number,
  { warmupMs, durationMs }: { readonly warmupMs: number; readonly durationMs: number },
): Scene {
  return { target, service, callers, warmupMs, durationMs }
}

/** Who makes the calls, and who counts them. */
export interface Stage {
  readonly load: Child
  readonly backend: Child
}

/** Measures a scene once. Throws when a call failed, or when fewer calls reached the backend than were answered. */
export async function takeSample({ load, backend }: Stage, scene: Scene): Promise<Sample> {
  const { target, service, callers, warmupMs, durationMs } = scene
  const servedBefore = await served(backend)
  const before = target.pid === undefined ? undefined : readCpu(target.pid)
  const order: LoadOrder = { ...target.request(service), callers, warmupMs, durationMs, maxCalls }
  const startMs = performance.now()
  const report = await load.ask(order, warmupMs + durationMs + 90_000)
  const elapsedUs = (performance.now() - startMs) * 1_000
  const after = target.pid === undefined ? undefined : readCpu(target.pid)
  if (!isLoadReport(report)) throw new Error('the load generator made no report')
  if (report.failure !== null) throw new Error(`${target.name}, ${service.name}: ${report.failure}`)
  // A gate that answered without asking the backend would be fast, and measured wrongly.
  const reached = (await served(backend)) - servedBefore
  if (reached < report.allCalls) throw new Error(`${target.name}: ${report.allCalls} calls, ${reached} at the backend`)
  const cpu = before === undefined || after === undefined ? undefined : { before, after }
  return {
    ...latenciesOf(report),
    cpuUs: cpu === undefined ? Number.NaN : (cpu.after.ownUs - cpu.before.ownUs) / report.allCalls,
    childrenCpuUs:
      cpu === undefined ? Number.NaN : (cpu.after.descendantsUs - cpu.before.descendantsUs) / report.allCalls,
    waited: cpu === undefined ? Number.NaN : (cpu.after.waitedUs - cpu.before.waitedUs) / elapsedUs,
    loadCpuUs: report.loadCpuUs / report.allCalls,
  }
}

function latenciesOf(report: LoadReport): Omit<Sample, 'cpuUs' | 'childrenCpuUs' | 'waited' | 'loadCpuUs'> {
  const { calls, allCalls, elapsedMs, p50Ms, p99Ms, p999Ms, firstTokenP50Ms, firstTokenP99Ms, perTokenUs } = report
  // A channel between processes makes null of NaN.
  const orNaN = (value: number | null): number => value ?? Number.NaN
  return {
    perSecond: (calls / elapsedMs) * 1_000,
    calls: allCalls,
    p50Ms,
    p99Ms,
    p999Ms,
    firstTokenP50Ms: orNaN(firstTokenP50Ms),
    firstTokenP99Ms: orNaN(firstTokenP99Ms),
    perTokenUs: orNaN(perTokenUs),
  }
}

/** The median of every figure, each on its own. */
export function medians(rounds: readonly Sample[]): Sample {
  const of = (name: keyof Sample): number => median(rounds.map((round) => round[name]))
  return {
    perSecond: of('perSecond'),
    p50Ms: of('p50Ms'),
    p99Ms: of('p99Ms'),
    p999Ms: of('p999Ms'),
    firstTokenP50Ms: of('firstTokenP50Ms'),
    firstTokenP99Ms: of('firstTokenP99Ms'),
    perTokenUs: of('perTokenUs'),
    calls: of('calls'),
    cpuUs: of('cpuUs'),
    childrenCpuUs: of('childrenCpuUs'),
    waited: of('waited'),
    loadCpuUs: of('loadCpuUs'),
  }
}

async function served(backend: Child): Promise<number> {
  const stats = await backend.ask({ want: 'stats' }, 10_000)
  if (typeof stats === 'object' && stats !== null && 'served' in stats && typeof stats.served === 'number')
    return stats.served
  throw new Error('the backend has no counters')
}
