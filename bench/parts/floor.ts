import { join } from 'node:path'
import { startChild, urlOf } from '../children.ts'
import type { Finding, Part } from '../part.ts'
import { measureInTurn, shareOf } from '../rounds.ts'
import { sceneOf } from '../sample.ts'
import { services } from '../services.ts'
import { openaiTarget, plainTarget, proxyName, type Target } from '../targets.ts'
import { gateCpu, type World } from '../world.ts'
import { measureOneCaller, oneCallerTable } from './latency.ts'
import { unaryTable } from './unary.ts'

/** Between the bare proxy and the gate: what a call costs that is checked and recorded by plain code, and nothing else. */
export const floor: Part = { name: 'floor', isDefault: false, run }

async function run(world: World): Promise<Finding> {
  const steps = ['parse', 'key', 'record']
  const lines = await Promise.all(steps.map((step) => straightLine(world, step)))
  const targets = [world.direct, world.proxy, ...lines, openaiTarget(await world.gate())]
  const scenes = targets.map((target) => sceneOf(target, services.plain, 64, world.effort))
  const results = await measureInTurn(world, scenes, world.effort.rounds)
  const alone = await measureOneCaller(world, targets)
  const figures = results.map((result) => [
    `${result.scene.target.name}: of proxy`,
    shareOf(results, result, proxyName),
  ])
  return {
    results: [...results, ...alone],
    tables: [
      unaryTable('From the bare proxy to the gate', results),
      oneCallerTable('One caller, from the bare proxy to the gate', alone),
    ],
    figures: Object.fromEntries(figures),
  }
}

async function straightLine({ backendUrl, scratch }: World, step: string): Promise<Target> {
  const child = await startChild('straight-line.ts', [backendUrl, step, join(scratch(), 'records')], gateCpu)
  return plainTarget(`straight line up to "${step}"`, child.pid, urlOf(child))
}
