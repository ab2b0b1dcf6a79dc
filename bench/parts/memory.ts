import { setTimeout as sleep } from 'node:timers/promises'
import { type Metrics, readMetrics } from '../metrics.ts'
import type { Finding, Part } from '../part.ts'
import { sceneOf, takeSample } from '../sample.ts'
import { type BenchService, services } from '../services.ts'
import { figure } from '../table.ts'
import { grpcTarget, openaiTarget, type Target } from '../targets.ts'
import type { World } from '../world.ts'

/** Memory of a gate of its own, idle and under load, and how late its event loop runs meanwhile. */
export const memory: Part = { name: 'memory', isDefault: true, run }

interface Moment {
  readonly name: string
  readonly metrics: readonly Metrics[]
}

const idleMs = 3_000
const quickIdleMs = 1_000

async function run(world: World): Promise<Finding> {
  const gate = await world.startGate({})
  const [openai, grpc] = [openaiTarget(gate), grpcTarget(gate)]
  const busy: readonly { name: string; target: Target; service: BenchService; callers: number }[] = [
    { name: 'OpenAI JSON, 64 callers', target: openai, service: services.plain, callers: 64 },
    { name: 'gRPC, 256 callers', target: grpc, service: services.plain, callers: 256 },
    { name: 'OpenAI JSON, 16 callers, 256 KiB', target: openai, service: services.large, callers: 16 },
    { name: 'SSE, 512 paced streams', target: openai, service: services.slow, callers: 512 },
  ]
  const moments: Moment[] = []
  const rest = async (name: string): Promise<void> => {
    await readMetrics(gate.origin)
    await sleep(world.isQuick ? quickIdleMs : idleMs)
    moments.push({ name, metrics: [await readMetrics(gate.origin)] })
  }
  const effort = { warmupMs: 100, durationMs: world.isQuick ? 700 : 5_000 }
  await rest('idle, after its run-in')
  for (const { name, target, service, callers } of busy) {
    const metrics: Metrics[] = []
    await readMetrics(gate.origin)
    const watch = setInterval(() => void readMetrics(gate.origin).then((read) => metrics.push(read)), 1_000)
    await takeSample(world, sceneOf(target, service, callers, effort))
    clearInterval(watch)
    metrics.push(await readMetrics(gate.origin))
    moments.push({ name, metrics })
  }
  await rest('idle after it')
  await gate.stop()
  return { results: [], tables: [tableOf(moments)], figures: figuresOf(moments) }
}

function most({ metrics }: Moment, name: string): number {
  return Math.max(...metrics.map((read) => read.get(name) ?? Number.NaN))
}

function tableOf(moments: readonly Moment[]): Finding['tables'][number] {
  return {
    title: 'Memory and event loop of the gate, the most that was seen',
    columns: ['moment', 'RSS MiB', 'heap used MiB', 'descriptors', 'loop late p50 ms', 'p99 ms', 'max ms'],
    rows: moments.map((moment) => [
      moment.name,
      figure(most(moment, 'process_resident_memory_bytes') / 2 ** 20),
      figure(most(moment, 'nodejs_heap_size_used_bytes') / 2 ** 20),
      figure(most(moment, 'process_open_fds')),
      figure(most(moment, 'nodejs_eventloop_lag_p50_seconds') * 1_000, 1),
      figure(most(moment, 'nodejs_eventloop_lag_p99_seconds') * 1_000, 1),
      figure(most(moment, 'nodejs_eventloop_lag_max_seconds') * 1_000, 1),
    ]),
  }
}

function figuresOf(moments: readonly Moment[]): Finding['figures'] {
  return Object.fromEntries(
    moments.map((moment) => [`RSS MiB, ${moment.name}`, most(moment, 'process_resident_memory_bytes') / 2 ** 20]),
  )
}
