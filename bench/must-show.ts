import type { Finding } from './part.ts'
import { figure, percent, type Table } from './table.ts'

/** A target: the figure of a part, by name, and the bound that it must keep. */
interface Demand {
  readonly what: string
  readonly part: string
  readonly figure: string
  readonly bound: number
  readonly is: 'at least' | 'at most'
  readonly unit: '%' | 'ms' | 'µs' | ''
}

const added = { part: 'latency', is: 'at most', unit: 'ms' } as const
const stream = { part: 'streams', is: 'at most' } as const
const clean = { part: 'crowd', is: 'at least', bound: 512, unit: '' } as const
const tax = { part: 'tax', is: 'at most', bound: 0.3, unit: '%' } as const
const ofProxy = { is: 'at least', unit: '%' } as const

/** What the gate is held to, with everything on, in a run on an idle machine. */
const demands: readonly Demand[] = [
  {
    what: 'OpenAI JSON, 64 callers, of the bare proxy',
    part: 'unary',
    figure: 'gate, OpenAI JSON, bench, 64: of proxy',
    bound: 0.6,
    ...ofProxy,
  },
  {
    what: 'gRPC, 64 callers, of the bare proxy',
    part: 'unary',
    figure: 'gate, gRPC, bench, 64: of proxy',
    bound: 0.5,
    ...ofProxy,
  },
  {
    what: 'server-sent streams, 32 callers, of the bare proxy',
    part: 'streams',
    figure: 'gate, SSE: of proxy',
    bound: 0.5,
    ...ofProxy,
  },
  {
    what: 'gRPC streams, 32 callers, of the bare proxy',
    part: 'streams',
    figure: 'gate, gRPC: of proxy',
    bound: 0.5,
    ...ofProxy,
  },
  { what: 'governance tax, OpenAI JSON', figure: 'tax, OpenAI JSON', ...tax },
  { what: 'governance tax, gRPC', figure: 'tax, gRPC', ...tax },
  { what: 'one caller, OpenAI JSON, added p50', figure: 'gate, OpenAI JSON: added p50 ms', bound: 0.4, ...added },
  { what: 'one caller, OpenAI JSON, added p99', figure: 'gate, OpenAI JSON: added p99 ms', bound: 1, ...added },
  { what: 'one caller, gRPC, added p50', figure: 'gate, gRPC: added p50 ms', bound: 0.4, ...added },
  { what: 'one caller, gRPC, added p99', figure: 'gate, gRPC: added p99 ms', bound: 1, ...added },
  { what: 'first token, SSE, added p50', figure: 'gate, SSE: first token added ms', bound: 1, unit: 'ms', ...stream },
  { what: 'first token, gRPC, added p50', figure: 'gate, gRPC: first token added ms', bound: 1, unit: 'ms', ...stream },
  {
    what: 'a token of 32 paced streams, SSE, time added',
    figure: 'gate, SSE: µs added between tokens',
    bound: 60,
    unit: 'µs',
    ...stream,
  },
  {
    what: 'a token of 32 paced streams, gRPC, time added',
    figure: 'gate, gRPC: µs added between tokens',
    bound: 60,
    unit: 'µs',
    ...stream,
  },
  {
    what: 'a token of 32 paced streams, SSE, CPU',
    figure: 'gate, SSE: CPU µs a token',
    bound: 60,
    unit: 'µs',
    ...stream,
  },
  {
    what: 'a token of 32 paced streams, gRPC, CPU',
    figure: 'gate, gRPC: CPU µs a token',
    bound: 60,
    unit: 'µs',
    ...stream,
  },
  { what: '512 server-sent streams at once, clean', figure: 'gate, SSE', ...clean },
  { what: '512 gRPC streams at once, clean', figure: 'gate, gRPC', ...clean },
]

/** The parts that measure what is demanded. */
export const demandedParts: readonly string[] = [...new Set(demands.map(({ part }) => part))]

/** What was demanded, what was measured, and whether that is enough. */
export function mustShow(findings: Readonly<Record<string, Finding>>): Table {
  return {
    title: 'What the gate is held to',
    columns: ['figure', 'target', 'measured', 'reached', 'by CPU'],
    rows: demands.map((demand) => {
      const figures = findings[demand.part]?.figures
      const value = figures?.[demand.figure] ?? Number.NaN
      const byCpu = figures?.[`${demand.figure}, by CPU`] ?? Number.NaN
      const isReached = demand.is === 'at least' ? value >= demand.bound : value <= demand.bound
      return [
        demand.what,
        `${demand.is} ${write(demand.bound, demand)}`,
        write(value, demand),
        isReached ? 'yes' : 'no',
        write(byCpu, demand),
      ]
    }),
  }
}

function write(value: number, { unit }: Demand): string {
  if (Number.isNaN(value)) return '-'
  if (unit === '%') return percent(value)
  return `${figure(value, unit === 'ms' ? 2 : 0)} ${unit}`.trimEnd()
}
