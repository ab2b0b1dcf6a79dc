import type { Finding, Part } from '../part.ts'
import { compareRounds, measureInTurn } from '../rounds.ts'
import { type Sample, sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { figure } from '../table.ts'
import { connectTarget, directName, grpcTarget, openaiTarget } from '../targets.ts'
import type { World } from '../world.ts'

/** What one caller waits for, beside the direct call. */
export const latency: Part = { name: 'latency', isDefault: true, run }

/** Long rounds: the 99.9th percentile is the third of three thousand calls. */
const durationMs = 3_000

async function run(world: World): Promise<Finding> {
  const gate = await world.gate()
  const targets = [world.direct, world.proxy, openaiTarget(gate), connectTarget(gate), grpcTarget(gate)]
  const effort = world.isQuick ? world.effort : { ...world.effort, durationMs }
  const scenes = targets.map((target) => sceneOf(target, services.plain, 1, effort))
  const results = await measureInTurn(world, scenes, world.effort.rounds)
  const rows = results.map((result) => {
    const added = (pick: (sample: Sample) => number): number =>
      compareRounds(results, result, directName, (own, direct) => pick(own) - pick(direct))
    return {
      name: result.scene.target.name,
      median: result.median,
      p50Ms: added((sample) => sample.p50Ms),
      p99Ms: added((sample) => sample.p99Ms),
      p999Ms: added((sample) => sample.p999Ms),
    }
  })
  return {
    results,
    tables: [
      {
        title: 'One caller: what the direct call takes, and what is added to it',
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
        rows: rows.map(({ name, median, p50Ms, p99Ms, p999Ms }) => [
          name,
          ...[median.p50Ms, median.p99Ms, median.p999Ms].map((ms) => figure(ms, 3)),
          ...[p50Ms, p99Ms, p999Ms].map((ms) => (name === directName ? '-' : figure(ms, 3))),
          figure(median.cpuUs),
          figure(100 * median.waited).concat(Number.isNaN(median.waited) ? '' : ' %'),
        ]),
      },
    ],
    figures: Object.fromEntries(
      rows.flatMap(({ name, p50Ms, p99Ms }) => [
        [`${name}: added p50 ms`, p50Ms],
        [`${name}: added p99 ms`, p99Ms],
      ]),
    ),
  }
}
