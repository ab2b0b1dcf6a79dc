import type { Finding, Part } from '../part.ts'
import { compareRounds, measureInTurn, type Result } from '../rounds.ts'
import { type Sample, type Scene, sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { figure, type Table } from '../table.ts'
import { connectTarget, directName, grpcTarget, openaiTarget, type Target } from '../targets.ts'
import type { World } from '../world.ts'

/** What one caller waits for, beside the direct call. */
export const latency: Part = { name: 'latency', isDefault: true, run }

/** Long rounds: the 99.9th percentile is the third of three thousand calls. */
const durationMs = 3_000

/** One caller makes a thousand calls a second: V8 compiles for as long, on the core that the calls wait for. */
const runInMs = 8_000

async function run(world: World): Promise<Finding> {
  const gate = await world.gate()
  const targets = [world.direct, world.proxy, openaiTarget(gate), connectTarget(gate), grpcTarget(gate)]
  const results = await measureOneCaller(world, targets)
  return {
    results,
    tables: [oneCallerTable('One caller: what the direct call takes, and what is added to it', results)],
    figures: Object.fromEntries(
      results.flatMap((result) => {
        const { p50Ms, p99Ms } = addedBy(result, results)
        const { name } = result.scene.target
        return [
          [`${name}: added p50 ms`, p50Ms],
          [`${name}: added p99 ms`, p99Ms],
        ]
      }),
    ),
  }
}

/** One caller by each way, in turn. The direct one must be among them. */
export async function measureOneCaller(world: World, targets: readonly Target[]): Promise<Result[]> {
  const { effort, isQuick } = world
  const scenes = targets.map((target): Scene => {
    return sceneOf(target, services.plain, 1, isQuick ? effort : { ...effort, durationMs })
  })
  return await measureInTurn(world, scenes, effort.rounds, isQuick ? undefined : runInMs)
}

/** The table of {@link measureOneCaller}. */
export function oneCallerTable(title: string, results: readonly Result[]): Table {
  return {
    title,
    columns: [
      'target',
      'p50 ms',
      'p99 ms',
      'p99.9 ms',
      'added p50',
      'added p99',
      'added p99.9',
      'CPU µs/call',
      'waited',
    ],
    rows: results.map((result) => {
      const { median } = result
      const { name } = result.scene.target
      const { p50Ms, p99Ms, p999Ms } = addedBy(result, results)
      return [
        name,
        ...[median.p50Ms, median.p99Ms, median.p999Ms].map((ms) => figure(ms, 3)),
        ...[p50Ms, p99Ms, p999Ms].map((ms) => (name === directName ? '-' : figure(ms, 3))),
        figure(median.cpuUs),
        figure(100 * median.waited).concat(Number.isNaN(median.waited) ? '' : ' %'),
      ]
    }),
  }
}

/** What a way adds to the direct call. */
function addedBy(result: Result, results: readonly Result[]): Pick<Sample, 'p50Ms' | 'p99Ms' | 'p999Ms'> {
  const added = (pick: (sample: Sample) => number): number =>
    compareRounds(results, result, directName, (own, direct) => pick(own) - pick(direct))
  return {
    p50Ms: added((sample) => sample.p50Ms),
    p99Ms: added((sample) => sample.p99Ms),
    p999Ms: added((sample) => sample.p999Ms),
  }
}
