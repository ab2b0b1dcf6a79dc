import { type Metrics, readMetrics } from '../metrics.ts'
import type { Finding, Part } from '../part.ts'
import { median } from '../report.ts'
import { sceneOf, takeSample } from '../sample.ts'
import { services } from '../services.ts'
import { figure, percent } from '../table.ts'
import { grpcTarget, openaiTarget } from '../targets.ts'
import type { World } from '../world.ts'

/** Two million calls, and whether memory or descriptors grow meanwhile. */
export const soak: Part = { name: 'soak', isDefault: false, run }

interface Reading {
  readonly calls: number
  readonly rssMiB: number
  readonly heapMiB: number
  readonly descriptors: number
  readonly cpuUs: number
}

const callers = 64
const shownRows = 10

async function run(world: World): Promise<Finding> {
  const gate = await world.startGate({})
  const wanted = world.isQuick ? 20_000 : 2_000_000
  const effort = { warmupMs: 100, durationMs: world.isQuick ? 1_000 : 5_000 }
  const scenes = [
    sceneOf(openaiTarget(gate), services.plain, callers, effort),
    sceneOf(grpcTarget(gate), services.plain, callers, effort),
    sceneOf(openaiTarget(gate), services.stream, callers, effort),
  ]
  const readings: Reading[] = []
  let calls = 0
  while (calls < wanted) {
    let cpuUs = 0
    for (const scene of scenes) {
      const sample = await takeSample(world, scene)
      calls += sample.calls
      cpuUs += sample.cpuUs / scenes.length
    }
    const reading = readingOf(await readMetrics(gate.origin), calls, cpuUs)
    readings.push(reading)
    process.stderr.write(`${calls} calls: RSS ${figure(reading.rssMiB)} MiB, ${reading.descriptors} descriptors\n`)
  }
  await gate.stop()
  const grown = growthOf(readings)
  const step = Math.max(1, Math.ceil(readings.length / shownRows))
  const shown = readings.filter((_, index) => (index + 1) % step === 0 || index === readings.length - 1)
  return {
    results: [],
    tables: [
      {
        title: `${calls} calls: OpenAI JSON, gRPC and server-sent events in turn, ${callers} callers`,
        columns: ['calls', 'RSS MiB', 'heap used MiB', 'descriptors', 'CPU µs/call'],
        rows: shown.map((reading) => [
          figure(reading.calls),
          figure(reading.rssMiB),
          figure(reading.heapMiB),
          figure(reading.descriptors),
          figure(reading.cpuUs),
        ]),
      },
      {
        title: 'Growth from the second quarter of the calls to the last, medians',
        columns: ['RSS', 'heap used', 'descriptors'],
        rows: [[percent(grown.rss), percent(grown.heap), percent(grown.descriptors)]],
      },
    ],
    figures: grown,
  }
}

function readingOf(metrics: Metrics, calls: number, cpuUs: number): Reading {
  const of = (name: string): number => metrics.get(name) ?? Number.NaN
  return {
    calls,
    rssMiB: of('process_resident_memory_bytes') / 2 ** 20,
    heapMiB: of('nodejs_heap_size_used_bytes') / 2 ** 20,
    descriptors: of('process_open_fds'),
    cpuUs,
  }
}

/** The first quarter is left out: caches fill and code is compiled. */
function growthOf(readings: readonly Reading[]): { rss: number; heap: number; descriptors: number } {
  const quarter = Math.max(1, Math.floor(readings.length / 4))
  const growth = (pick: (reading: Reading) => number): number =>
    median(readings.slice(-quarter).map(pick)) / median(readings.slice(quarter, 2 * quarter).map(pick)) - 1
  return {
    rss: growth((reading) => reading.rssMiB),
    heap: growth((reading) => reading.heapMiB),
    descriptors: growth((reading) => reading.descriptors),
  }
}
