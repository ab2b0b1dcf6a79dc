/**
 * `npm run bench -- [--quick] [--only NAME,…] [--must-show] [--json FILE] [--main FILE] [--rounds N]
 *   [--ledger-rows N] [--shared-core]`
 *
 * What the gate costs, with everything on that it governs calls with, always beside the same backend called directly and
 * through a bare Node proxy, in the same run. docs/performance.md says what each part measures and how to read it.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { checkGoverned } from './check-governed.ts'
import { canPin } from './children.ts'
import { demandedParts, mustShow } from './must-show.ts'
import type { Finding, Part } from './part.ts'
import { parts } from './parts/parts.ts'
import { describeMachine } from './report.ts'
import { printTable } from './table.ts'
import { openWorld, type World } from './world.ts'

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    'must-show': { type: 'boolean', default: false },
    json: { type: 'string' },
    main: { type: 'string', default: 'src/main.ts' },
    rounds: { type: 'string' },
    'ledger-rows': { type: 'string' },
    'shared-core': { type: 'boolean', default: false },
  },
})
const effort = flags.quick
  ? { rounds: 1, warmupMs: 100, durationMs: 400 }
  : { rounds: 5, warmupMs: 200, durationMs: 1_000 }
const rounds = Number(flags.rounds ?? effort.rounds)
if (!(rounds >= 1 && rounds <= 100)) throw new Error('--rounds: from 1 to 100')
const wanted = choose(flags.only ?? (flags['must-show'] ? demandedParts.join(',') : undefined))
/** What takes longer is asked for by name. */
const hardStopMs = wanted.every(({ isDefault }) => isDefault) ? 1_200_000 : 3_600_000

const machine = describeMachine(canPin)
let world: World | undefined
let leaving = false
const hardStop = setTimeout(() => void leave(new Error('the benchmark took too long')), hardStopMs)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void leave(new Error(signal)))
try {
  world = await openWorld({
    effort: { ...effort, rounds },
    ledgerRows: flags['ledger-rows'] === undefined ? undefined : Number(flags['ledger-rows']),
    isQuick: flags.quick,
    isCoreShared: flags['shared-core'],
    main: flags.main,
    check: checkGoverned,
  })
  await measure(world)
  await leave()
} catch (error) {
  await leave(error)
}

function choose(only: string | undefined): readonly Part[] {
  if (only === undefined) return parts.filter(({ isDefault }) => isDefault)
  return only.split(',').map((name) => {
    const part = parts.find((each) => each.name === name)
    if (part === undefined) throw new Error(`--only: one of ${parts.map((each) => each.name).join(', ')}`)
    return part
  })
}

async function measure(stage: World): Promise<void> {
  const findings: Record<string, Finding> = {}
  for (const part of wanted) {
    process.stderr.write(`${part.name}:\n`)
    const finding = await part.run(stage)
    findings[part.name] = finding
    for (const table of finding.tables) console.log(`${printTable(table)}`)
    if (flags.json !== undefined) writeReport(flags.json, findings)
  }
  if (flags['must-show']) console.log(printTable(mustShow(findings)))
  console.log(JSON.stringify(machine))
}

function writeReport(file: string, findings: Readonly<Record<string, Finding>>): void {
  const report = {
    machine,
    time: new Date().toISOString(),
    settings: { ...effort, rounds, isCoreShared: flags['shared-core'] },
    findings,
  }
  writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`)
}

async function leave(error?: unknown): Promise<void> {
  // Children that are told to stop make the measurement fail too: the first reason is the one to tell.
  if (leaving) return await new Promise(() => {})
  leaving = true
  clearTimeout(hardStop)
  if (error !== undefined) console.error(error)
  await world?.close()
  process.exit(error === undefined ? 0 : 1)
}
