import type { Finding, Part } from '../part.ts'
import { cpuShareOf, measureInTurn, type Result, shareOf } from '../rounds.ts'
import { sceneOf } from '../sample.ts'
import { type BenchService, services } from '../services.ts'
import { figure, percent, type Table } from '../table.ts'
import { connectTarget, directName, grpcTarget, openaiTarget, proxyName } from '../targets.ts'
import type { World } from '../world.ts'

/** Whole answers of 1 KB, by every wire, with few callers and many. */
export const unary: Part = {
  name: 'unary',
  isDefault: true,
  run: (world) => runUnary(world, 'Unary calls, 1 KiB', [services.plain], world.isQuick ? [1, 64] : [1, 16, 64, 256]),
}

/** The same with requests and answers of 16 and 256 KiB. */
export const payloads: Part = {
  name: 'payloads',
  isDefault: true,
  run: (world) => {
    const wanted = world.isQuick ? [services.medium] : [services.medium, services.large]
    return runUnary(world, 'Unary calls with large bodies', wanted, [16])
  },
}

async function runUnary(
  world: World,
  title: string,
  wanted: readonly BenchService[],
  callerCounts: readonly number[],
): Promise<Finding> {
  const gate = await world.gate()
  const targets = [world.direct, world.proxy, openaiTarget(gate), connectTarget(gate), grpcTarget(gate)]
  const scenes = wanted.flatMap((service) =>
    callerCounts.flatMap((callers) => targets.map((target) => sceneOf(target, service, callers, world.effort))),
  )
  const results = await measureInTurn(world, scenes, world.effort.rounds)
  const figures = Object.fromEntries(
    results.flatMap((result) => {
      const { target, service, callers } = result.scene
      const name = `${target.name}, ${service.name}, ${callers}: of proxy`
      return [
        [name, shareOf(results, result, proxyName)],
        [`${name}, by CPU`, cpuShareOf(results, result, proxyName)],
      ]
    }),
  )
  return { tables: [unaryTable(title, results)], results, figures }
}

/** The table that every unary measurement prints. */
export function unaryTable(title: string, results: readonly Result[]): Table {
  return {
    title,
    columns: [
      'target',
      'bytes',
      'callers',
      'requests/s',
      'p50 ms',
      'p99 ms',
      'p99.9 ms',
      'CPU µs/call',
      'of its Postgres',
      'waited',
      'of direct',
      'of bare proxy',
      'by CPU',
    ],
    rows: results.map((result) => {
      const { scene: of, median } = result
      return [
        of.target.name,
        String(of.service.requestBytes),
        String(of.callers),
        figure(median.perSecond),
        figure(median.p50Ms, 2),
        figure(median.p99Ms, 2),
        figure(median.p999Ms, 2),
        figure(median.cpuUs),
        figure(median.childrenCpuUs === 0 ? Number.NaN : median.childrenCpuUs),
        percent(median.waited),
        percent(shareOf(results, result, directName)),
        percent(shareOf(results, result, proxyName)),
        percent(cpuShareOf(results, result, proxyName)),
      ]
    }),
  }
}
