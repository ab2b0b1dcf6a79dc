import { cpus, loadavg } from 'node:os'

/** One measurement of one target. */
export interface Sample {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** CPU time a call of the process between caller and backend, in microseconds; null for none, or without /proc. */
  readonly cpuUs: number | null
  /** The same of its child processes (the embedded Postgres). */
  readonly childrenCpuUs: number | null
  /** Share of the measured time that it waited for its core while others ran there; null like the rest. */
  readonly waited: number | null
  /** CPU time a call of the load generator. */
  readonly loadCpuUs: number
}

/** All measurements of one target with one number of callers, and their medians. */
export interface Result {
  readonly target: string
  readonly callers: number
  readonly median: Sample
  readonly rounds: readonly Sample[]
}

/** What a figure is worth depends on. */
export interface Machine {
  readonly node: string
  readonly platform: string
  readonly cpu: string
  readonly cores: number
  /** True when gate and load had a core each. */
  readonly pinned: boolean
  /** Load average of the last minute, before the run: what else the machine was doing. */
  readonly loadBefore: number
}

/** Describes the machine that runs this. */
export function describeMachine(pinned: boolean): Machine {
  const cores = cpus()
  return {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    cpu: cores[0]?.model ?? 'unknown',
    cores: cores.length,
    pinned,
    loadBefore: Math.round((loadavg()[0] ?? 0) * 100) / 100,
  }
}

/** The median of every figure, each on its own. */
export function summarize(target: string, callers: number, rounds: readonly Sample[]): Result {
  const of = (pick: (sample: Sample) => number): number => median(rounds.map(pick))
  const maybe = (pick: (sample: Sample) => number | null): number | null =>
    rounds.some((sample) => pick(sample) === null) ? null : of((sample) => pick(sample) ?? 0)
  return {
    target,
    callers,
    rounds,
    median: {
      requestsPerSecond: of((sample) => sample.requestsPerSecond),
      p50Ms: of((sample) => sample.p50Ms),
      p99Ms: of((sample) => sample.p99Ms),
      cpuUs: maybe((sample) => sample.cpuUs),
      childrenCpuUs: maybe((sample) => sample.childrenCpuUs),
      waited: maybe((sample) => sample.waited),
      loadCpuUs: of((sample) => sample.loadCpuUs),
    },
  }
}

/** Throughput and CPU of a result as shares of another target's with as many callers. */
export function ratio(results: readonly Result[], result: Result, target: string): number | null {
  const base = results.find((other) => other.target === target && other.callers === result.callers)
  return base === undefined ? null : result.median.requestsPerSecond / base.median.requestsPerSecond
}

/** The results as a Markdown table, with throughput as shares of the two baselines. */
export function printTable(results: readonly Result[], direct: string, proxy: string): string {
  const share = (value: number | null): string => (value === null ? '-' : `${Math.round(value * 100)} %`)
  const micros = (value: number | null): string => (value === null || value === 0 ? '-' : value.toFixed(0))
  const rows = results.map((result) => {
    const { median: figures, target, callers } = result
    const cells = [
      target,
      callers,
      figures.requestsPerSecond.toFixed(0),
      figures.p50Ms.toFixed(2),
      figures.p99Ms.toFixed(2),
      micros(figures.cpuUs),
      micros(figures.childrenCpuUs),
      share(figures.waited),
      share(ratio(results, result, direct)),
      share(ratio(results, result, proxy)),
    ]
    return `| ${cells.join(' | ')} |`
  })
  return [
    '| target | callers | requests/s | p50 ms | p99 ms | CPU µs/call | of its Postgres | waited | of direct | of bare proxy |',
    '|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|',
    ...rows,
  ].join('\n')
}

/** The middle value; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}
