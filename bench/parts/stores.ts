import { checkGoverned } from '../check-governed.ts'
import type { Finding, Part } from '../part.ts'
import { measureInTurn, shareOf } from '../rounds.ts'
import { sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { startStores } from '../stores.ts'
import { grpcTarget, openaiTarget, proxyName } from '../targets.ts'
import { loadCpu, type World } from '../world.ts'
import { unaryTable } from './unary.ts'

/** The gate with embedded stores beside the gate with Redis and Postgres, which have the load generator's core. */
export const stores: Part = { name: 'stores', isDefault: true, run }

async function run(world: World): Promise<Finding> {
  const embedded = await world.gate()
  const servers = await startStores(loadCpu)
  const gate = await world.startGate({ env: servers.env })
  await checkGoverned(gate)
  const targets = [
    world.direct,
    world.proxy,
    openaiTarget(embedded, 'embedded, OpenAI JSON'),
    openaiTarget(gate, 'Redis and Postgres, OpenAI JSON'),
    grpcTarget(embedded, 'embedded, gRPC'),
    grpcTarget(gate, 'Redis and Postgres, gRPC'),
  ]
  const callerCounts = world.isQuick ? [64] : [1, 64]
  const scenes = callerCounts.flatMap((callers) =>
    targets.map((target) => sceneOf(target, services.plain, callers, world.effort)),
  )
  try {
    const results = await measureInTurn(world, scenes, world.effort.rounds)
    const figures = results.map((result) => {
      const { target, callers } = result.scene
      return [`${target.name}, ${callers}: of proxy`, shareOf(results, result, proxyName)]
    })
    return {
      results,
      tables: [unaryTable('Embedded stores, and Redis with Postgres', results)],
      figures: Object.fromEntries(figures),
    }
  } finally {
    await gate.stop()
    await servers.stop()
  }
}
