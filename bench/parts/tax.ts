import { ungoverned } from '../governance.ts'
import type { Finding, Part } from '../part.ts'
import { compareRounds, measureInTurn } from '../rounds.ts'
import { type Sample, sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { percent } from '../table.ts'
import { grpcTarget, openaiTarget } from '../targets.ts'
import type { World } from '../world.ts'
import { unaryTable } from './unary.ts'

/** What governing costs: the gate with everything on beside the same gate with everything off that can be off. */
export const tax: Part = { name: 'tax', isDefault: true, run }

const callers = 64

async function run(world: World): Promise<Finding> {
  const on = await world.gate()
  const off = await world.startGate({ governance: ungoverned })
  const wires = [
    { name: 'OpenAI JSON', off: 'everything off, OpenAI JSON', targetOf: openaiTarget },
    { name: 'gRPC', off: 'everything off, gRPC', targetOf: grpcTarget },
  ]
  const targets = [
    world.proxy,
    ...wires.flatMap((wire) => [wire.targetOf(on, `everything on, ${wire.name}`), wire.targetOf(off, wire.off)]),
  ]
  const scenes = targets.map((target) => sceneOf(target, services.plain, callers, world.effort))
  const results = await measureInTurn(world, scenes, world.effort.rounds)
  await off.stop()
  const taxes = wires.map((wire) => {
    const result = results.find(({ scene }) => scene.target.name === `everything on, ${wire.name}`)
    const compare = (share: Parameters<typeof compareRounds>[3]): number =>
      result === undefined ? Number.NaN : compareRounds(results, result, wire.off, share)
    return {
      name: wire.name,
      throughput: compare((own, other) => 1 - own.perSecond / other.perSecond),
      // Of a full core, so many calls less.
      byCpu: compare((own, other) => 1 - cpuOf(other) / cpuOf(own)),
    }
  })
  return {
    results,
    tables: [
      unaryTable('Everything on, and everything off', results),
      {
        title: 'Governance tax',
        columns: ['wire', 'requests/s lost', 'by CPU'],
        rows: taxes.map(({ name, throughput, byCpu }) => [name, percent(throughput), percent(byCpu)]),
      },
    ],
    figures: Object.fromEntries(
      taxes.flatMap(({ name, throughput, byCpu }) => [
        [`tax, ${name}`, throughput],
        [`tax, ${name}, by CPU`, byCpu],
      ]),
    ),
  }
}

function cpuOf({ cpuUs, childrenCpuUs }: Sample): number {
  return cpuUs + childrenCpuUs
}
