import { cpus, loadavg } from 'node:os'

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

/** The middle value; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}
