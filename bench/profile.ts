/**
 * `node bench/profile.ts [--wires openai,connect,grpc,sse] [--callers N] [--seconds N] [--top N] [--keep DIR]`
 *
 * Where the time of a call goes: each wire is called for some seconds at a gate of its own that V8 profiles, with everything
 * on that it governs calls with. Prints self time by place and by function, as shares and in µs a call; DIR keeps the
 * profiles, which Chrome's DevTools and speedscope show as flame graphs.
 */
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { checkGoverned } from './check-governed.ts'
import { readSelfTimes, type SelfTimes } from './cpu-profile.ts'
import { sceneOf, takeSample } from './sample.ts'
import { services } from './services.ts'
import { figure, printTable, type Table } from './table.ts'
import { connectTarget, grpcTarget, openaiTarget } from './targets.ts'
import { openWorld, type World } from './world.ts'

const { values: flags } = parseArgs({
  options: {
    wires: { type: 'string', default: 'openai,grpc' },
    callers: { type: 'string', default: '64' },
    seconds: { type: 'string', default: '8' },
    top: { type: 'string', default: '30' },
    keep: { type: 'string' },
  },
})
const wires = {
  openai: { targetOf: openaiTarget, service: services.plain },
  connect: { targetOf: connectTarget, service: services.plain },
  grpc: { targetOf: grpcTarget, service: services.plain },
  sse: { targetOf: openaiTarget, service: services.stream },
  'grpc-stream': { targetOf: grpcTarget, service: services.stream },
} as const
const effort = { rounds: 1, warmupMs: 0, durationMs: Number(flags.seconds) * 1_000 }
const world = await openWorld({
  effort,
  isQuick: false,
  isCoreShared: false,
  ledgerRows: undefined,
  main: 'src/main.ts',
  check: checkGoverned,
})
try {
  for (const name of flags.wires.split(',')) await profile(world, name)
} finally {
  await world.close()
}

async function profile(stage: World, name: string): Promise<void> {
  const wire = Object.entries(wires).find(([known]) => known === name)?.[1]
  if (wire === undefined) throw new Error(`--wires: some of ${Object.keys(wires).join(', ')}`)
  const folder = flags.keep === undefined ? mkdtempSync(join(tmpdir(), 'tollgate-profile-')) : join(flags.keep, name)
  mkdirSync(folder, { recursive: true })
  const gate = await stage.startGate({ env: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${folder}` } })
  const scene = sceneOf(wire.targetOf(gate), wire.service, Number(flags.callers), effort)
  const startMs = performance.now()
  const sample = await takeSample(stage, scene)
  await gate.stop()
  const lastMs = performance.now() - startMs
  // Of the time before the scene nothing is shown.
  const threads = readdirSync(folder).map((file) => ({ file, times: readSelfTimes(join(folder, file), lastMs) }))
  const totalUs = threads.reduce((sum, { times }) => sum + times.totalUs, 0)
  for (const { file, times } of threads) print(`${name}, thread ${threadOf(file)}`, times, totalUs, sample.cpuUs)
  process.stderr.write(`profiles are in ${folder}\n`)
}

/** V8 writes one file for each thread, named by date, time, process, thread and count; 0 is the one that serves. */
function threadOf(file: string): string {
  return file.split('.')[4] ?? file
}

/** Shares of what all threads did, and what they are of the CPU that a call takes. */
function print(name: string, { functions, places }: SelfTimes, totalUs: number, cpuUs: number): void {
  const table = (what: string, sums: ReadonlyMap<string, number>): Table => ({
    title: `${name}, by ${what}`,
    columns: [what, 'share', 'µs a call'],
    rows: [...sums]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, Number(flags.top))
      .map(([key, us]) => [`\`${key}\``, `${figure((100 * us) / totalUs, 1)} %`, figure((cpuUs * us) / totalUs, 1)]),
  })
  console.log(printTable(table('place', places)))
  console.log(printTable(table('function', functions)))
}
