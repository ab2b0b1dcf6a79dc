import type { Finding, Part } from '../part.ts'
import { measureInTurn, type Result } from '../rounds.ts'
import type { Scene } from '../sample.ts'
import { type BenchService, services } from '../services.ts'
import { figure, percent, type Table } from '../table.ts'
import { grpcTarget, openaiTarget, proxyName, type Target } from '../targets.ts'
import type { World } from '../world.ts'

/** Which streams, how many at once, and for how long: a paced one takes half a second. */
const kinds = {
  one: { service: services.stream, callers: 1, durationMs: undefined },
  many: { service: services.stream, callers: 32, durationMs: undefined },
  paced: { service: services.paced, callers: 32, durationMs: 2_500 },
  crowd: { service: services.slow, callers: 512, durationMs: 2_500 },
} as const satisfies Record<string, { service: BenchService; callers: number; durationMs: number | undefined }>

type Kind = keyof typeof kinds

/** Streams of 50 tokens in 54 events: the first token, streams a second, the time between tokens. */
export const streams: Part = { name: 'streams', isDefault: true, run: runStreams }

/** 512 streams at once. A stream that lacks a token, or has one twice or out of place, fails the run. */
export const crowd: Part = { name: 'crowd', isDefault: true, run: runCrowd }

async function runStreams(world: World): Promise<Finding> {
  const targets = await streamTargets(world)
  const names: readonly Kind[] = ['one', 'many', 'paced']
  const results = await measureInTurn(
    world,
    names.flatMap((kind) => targets.map((target) => scene(kind, target, world))),
    world.effort.rounds,
  )
  const of = (kind: Kind, name: string): Result | undefined => find(results, kind, name)
  const perSecond = (name: string): number => of('many', name)?.median.perSecond ?? Number.NaN
  const [direct] = targets.map(({ name }) => name)
  const rows = targets.map(({ name }) => {
    const [one, many, paced] = [of('one', name)?.median, of('many', name)?.median, of('paced', name)?.median]
    return {
      name,
      firstP50Ms: one?.firstTokenP50Ms ?? Number.NaN,
      firstP99Ms: one?.firstTokenP99Ms ?? Number.NaN,
      perSecond: perSecond(name),
      ofProxy: perSecond(name) / perSecond(proxyName),
      cpuUs: many?.cpuUs ?? Number.NaN,
      perTokenUs: paced?.perTokenUs ?? Number.NaN,
      tokenCpuUs: (paced?.cpuUs ?? Number.NaN) / (services.paced.tokens ?? 1),
    }
  })
  const base = rows.find(({ name }) => name === direct)
  const table: Table = {
    title: 'Streams of 50 tokens',
    columns: [
      'target',
      'first token p50 ms',
      'p99 ms',
      'streams/s, 32 callers',
      'of bare proxy',
      'CPU µs a stream',
      'µs between tokens, paced',
      'added by it',
      'CPU µs a token, paced',
    ],
    rows: rows.map((row) => [
      row.name,
      figure(row.firstP50Ms, 2),
      figure(row.firstP99Ms, 2),
      figure(row.perSecond),
      percent(row.ofProxy),
      figure(row.cpuUs),
      figure(row.perTokenUs),
      row === base ? '-' : figure(row.perTokenUs - (base?.perTokenUs ?? Number.NaN)),
      figure(row.tokenCpuUs, 1),
    ]),
  }
  const figures = rows.flatMap((row) => [
    [`${row.name}/of proxy`, row.ofProxy],
    [`${row.name}/first token added ms`, row.firstP50Ms - (base?.firstP50Ms ?? Number.NaN)],
    [`${row.name}/µs added a token`, row.perTokenUs - (base?.perTokenUs ?? Number.NaN)],
    [`${row.name}/CPU µs a token`, row.tokenCpuUs],
  ])
  return { tables: [table], results, figures: Object.fromEntries(figures) }
}

async function runCrowd(world: World): Promise<Finding> {
  const scenes = (await streamTargets(world)).map((target) => scene('crowd', target, world))
  const results = await measureInTurn(world, scenes, 1)
  const table: Table = {
    title: '512 streams at once, a token every 20 ms, every token of every stream looked at',
    columns: [
      'target',
      'clean streams',
      'broken',
      'first token p50 ms',
      'p99 ms',
      'µs between tokens',
      'CPU µs a stream',
    ],
    rows: results.map(({ scene: { target }, median }) => [
      target.name,
      figure(median.calls),
      // One broken stream would have ended the run.
      '0',
      figure(median.firstTokenP50Ms, 1),
      figure(median.firstTokenP99Ms, 1),
      figure(median.perTokenUs),
      figure(median.cpuUs),
    ]),
  }
  return {
    tables: [table],
    results,
    figures: Object.fromEntries(results.map(({ scene: { target }, median }) => [target.name, median.calls])),
  }
}

async function streamTargets(world: World): Promise<readonly Target[]> {
  const gate = await world.gate()
  return [world.direct, world.proxy, openaiTarget(gate, 'gate, SSE'), grpcTarget(gate)]
}

function scene(kind: Kind, target: Target, { effort }: World): Scene {
  const { service, callers, durationMs } = kinds[kind]
  return { target, service, callers, warmupMs: effort.warmupMs, durationMs: durationMs ?? effort.durationMs }
}

function find(results: readonly Result[], kind: Kind, name: string): Result | undefined {
  const { service, callers } = kinds[kind]
  return results.find(({ scene: of }) => of.target.name === name && of.service === service && of.callers === callers)
}
