import type { Finding, Part } from '../part.ts'
import { compareRounds, measureInTurn, type Result } from '../rounds.ts'
import type { Sample, Scene } from '../sample.ts'
import { type BenchService, services } from '../services.ts'
import { figure, percent, type Table } from '../table.ts'
import { directName, grpcTarget, openaiTarget, proxyName, type Target } from '../targets.ts'
import type { World } from '../world.ts'

/** Which streams, how many at once, and for how long: a paced one takes half a second. */
const kinds = {
  one: { service: services.stream, callers: 1, durationMs: undefined },
  many: { service: services.stream, callers: 32, durationMs: undefined },
  paced: { service: services.paced, callers: 32, durationMs: 2_500 },
  crowd: { service: services.slow, callers: 512, durationMs: 2_500 },
} as const satisfies Record<string, { service: BenchService; callers: number; durationMs: number | undefined }>

/** One paced stream after the other, twice. */
const quickMs = 1_200

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
  const rows = targets.map(({ name }) => {
    const of = (kind: Kind, pick: (sample: Sample) => number): number => {
      const result = find(results, kind, name)
      return result === undefined ? Number.NaN : pick(result.median)
    }
    const beside = (kind: Kind, base: string, compare: (own: Sample, other: Sample) => number): number => {
      const result = find(results, kind, name)
      return result === undefined || name === base ? Number.NaN : compareRounds(results, result, base, compare)
    }
    return {
      name,
      firstP50Ms: of('one', (sample) => sample.firstTokenP50Ms),
      firstP99Ms: of('one', (sample) => sample.firstTokenP99Ms),
      firstAddedMs: beside('one', directName, (own, other) => own.firstTokenP50Ms - other.firstTokenP50Ms),
      perSecond: of('many', (sample) => sample.perSecond),
      ofProxy: name === proxyName ? 1 : beside('many', proxyName, (own, other) => own.perSecond / other.perSecond),
      ofProxyByCpu:
        name === proxyName
          ? 1
          : beside('many', proxyName, (own, other) => other.cpuUs / (own.cpuUs + own.childrenCpuUs)),
      cpuUs: of('many', (sample) => sample.cpuUs),
      perTokenUs: of('paced', (sample) => sample.perTokenUs),
      perTokenAddedUs: beside('paced', directName, (own, other) => own.perTokenUs - other.perTokenUs),
      tokenCpuUs: of('paced', (sample) => sample.cpuUs / services.paced.tokens),
    }
  })
  const table: Table = {
    title: 'Streams of 50 tokens',
    columns: [
      'target',
      'first token p50 ms',
      'p99 ms',
      'p50 added',
      'streams/s, 32 callers',
      'of bare proxy',
      'by CPU',
      'CPU µs a stream',
      'µs between tokens, paced',
      'added by it',
      'CPU µs a token, paced',
    ],
    rows: rows.map((row) => [
      row.name,
      figure(row.firstP50Ms, 2),
      figure(row.firstP99Ms, 2),
      figure(row.firstAddedMs, 2),
      figure(row.perSecond),
      percent(row.ofProxy),
      percent(row.ofProxyByCpu),
      figure(row.cpuUs),
      figure(row.perTokenUs),
      figure(row.perTokenAddedUs),
      figure(row.tokenCpuUs, 1),
    ]),
  }
  const figures = rows.flatMap((row) => [
    [`${row.name}: of proxy`, row.ofProxy],
    [`${row.name}: of proxy, by CPU`, row.ofProxyByCpu],
    [`${row.name}: first token added ms`, row.firstAddedMs],
    [`${row.name}: µs added between tokens`, row.perTokenAddedUs],
    [`${row.name}: CPU µs a token`, row.tokenCpuUs],
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

function scene(kind: Kind, target: Target, { effort, isQuick }: World): Scene {
  const { service, callers, durationMs } = kinds[kind]
  const paceMs = isQuick ? quickMs : durationMs
  return {
    target,
    service,
    callers,
    warmupMs: effort.warmupMs,
    durationMs: durationMs === undefined ? effort.durationMs : (paceMs ?? durationMs),
  }
}

function find(results: readonly Result[], kind: Kind, name: string): Result | undefined {
  const { service, callers } = kinds[kind]
  return results.find(
    ({ scene: of }) => of.target.name === name && of.service.name === service.name && of.callers === callers,
  )
}
