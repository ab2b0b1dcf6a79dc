import { type Child, startChild, urlOf } from '../children.ts'
import type { Gate } from '../gate.ts'
import type { Finding, Part } from '../part.ts'
import { compareRounds, measureInTurn } from '../rounds.ts'
import { sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { figure, percent } from '../table.ts'
import { openaiTarget } from '../targets.ts'
import { loadCpu, type World } from '../world.ts'
import { unaryTable } from './unary.ts'

/** What tracing costs when 1 % and when all calls are recorded, sent to a collector that counts them. */
export const tracing: Part = { name: 'tracing', isDefault: true, run }

const shares = [0.01, 1]
const callers = 64
const untraced = 'no tracing'

async function run(world: World): Promise<Finding> {
  const plain = await world.gate()
  const traced: { readonly name: string; readonly gate: Gate; readonly sink: Child }[] = []
  for (const share of shares) {
    const sink = await startChild('otlp-sink.ts', [], loadCpu)
    const gate = await world.startGate({
      env: {
        OTEL_EXPORTER_OTLP_ENDPOINT: urlOf(sink),
        OTEL_TRACES_SAMPLER: 'traceidratio',
        OTEL_TRACES_SAMPLER_ARG: String(share),
      },
    })
    traced.push({ name: `${share * 100} % traced`, gate, sink })
  }
  const targets = [
    world.proxy,
    openaiTarget(plain, untraced),
    ...traced.map(({ name, gate }) => openaiTarget(gate, name)),
  ]
  const scenes = targets.map((target) => sceneOf(target, services.plain, callers, world.effort))
  const results = await measureInTurn(world, scenes, world.effort.rounds)
  // What a gate holds back leaves when it stops.
  for (const { gate } of traced) await gate.stop()
  const rows: (readonly [name: string, cpuUs: number, added: number, spans: number])[] = []
  for (const { name, sink } of traced) {
    const result = results.find(({ scene }) => scene.target.name === name)
    if (result === undefined) continue
    const added = compareRounds(results, result, untraced, (own, other) => own.cpuUs / other.cpuUs - 1)
    rows.push([name, result.median.cpuUs, added, await spansOf(sink)])
  }
  return {
    results,
    tables: [
      unaryTable('Tracing', results),
      {
        title: 'What tracing adds',
        columns: ['gate', 'CPU µs/call', 'added', 'spans that arrived'],
        rows: rows.map(([name, cpuUs, added, spans]) => [name, figure(cpuUs), percent(added), figure(spans)]),
      },
    ],
    figures: Object.fromEntries(rows.map(([name, , added]) => [name, added])),
  }
}

async function spansOf(sink: Child): Promise<number> {
  const counted = await sink.ask({ want: 'spans' }, 10_000)
  if (typeof counted === 'object' && counted !== null && 'spans' in counted) return Number(counted.spans)
  throw new Error('the collector has no counter')
}
