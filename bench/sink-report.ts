/** One measurement of one way into Postgres. */
export interface Sample {
  readonly recordsPerSecond: number
  /** CPU time a record of this process, in microseconds; null without /proc. */
  readonly cpuUs: number | null
  /** The same of Postgres; null when it is not a child of this process. */
  readonly postgresCpuUs: number | null
}

/** All measurements with one number of consumers, and their medians. */
export interface Result {
  readonly consumers: number
  readonly drain: Sample
  readonly copy: Sample
  readonly rounds: { readonly drains: readonly Sample[]; readonly copies: readonly Sample[] }
}

/** The median of every figure, each on its own. */
export function medians(samples: readonly Sample[]): Sample {
  const of = (pick: (sample: Sample) => number | null): number | null =>
    samples.map(pick).toSorted((a, b) => (a ?? 0) - (b ?? 0))[samples.length >> 1] ?? null
  return {
    recordsPerSecond: of((sample) => sample.recordsPerSecond) ?? 0,
    cpuUs: of((sample) => sample.cpuUs),
    postgresCpuUs: of((sample) => sample.postgresCpuUs),
  }
}

/** As a Markdown table. */
export function sinkTable(results: readonly Result[]): string {
  const micros = (value: number | null): string => value?.toFixed(1) ?? '-'
  const rows = results.map(({ consumers, drain, copy }) => {
    const cells = [
      consumers,
      drain.recordsPerSecond.toFixed(0),
      copy.recordsPerSecond.toFixed(0),
      `${((drain.recordsPerSecond / copy.recordsPerSecond) * 100).toFixed(0)} %`,
      micros(drain.cpuUs),
      micros(drain.postgresCpuUs),
      micros(copy.cpuUs),
      micros(copy.postgresCpuUs),
    ]
    return `| ${cells.join(' | ')} |`
  })
  return [
    '| consumers | drain, records/s | COPY, records/s | drain of COPY | drain: CPU µs/record | of Postgres | COPY: CPU µs/record | of Postgres |',
    '|---:|---:|---:|---:|---:|---:|---:|---:|',
    ...rows,
  ].join('\n')
}
