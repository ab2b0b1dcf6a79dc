/**
 * `npm run faults -- [--seed N] [--calls N] [--scenario NAME] [--callers N] [--mode closed|open|local] [--workers N]
 * [--env NAME=VALUE]...`
 *
 * Breaks two gateways, Redis, Postgres and a backend under load, and judges the books afterwards. Scenarios: `seeded`
 * (everything in every way), `sliced` (the same with slices of limits), `postgres-minute`, `redis-restart`, `flushall`. With
 * several workers a gateway, the first two kill workers, too. Exit code 0: nothing is lost, doubled or different; 1:
 * something is, and the folder with logs and stores is kept; 130: interrupted.
 */
import { parseArgs } from 'node:util'
import { runFaults } from './fault-run.ts'
import { complaint, summary } from './report.ts'
import {
  type AwayMode,
  awayModeVariable,
  flushAll,
  postgresAway,
  redisRestart,
  type Scenario,
  seeded,
  sliced,
  workersVariable,
} from './scenarios.ts'
import { describeSchedule } from './schedule.ts'

const { values: flags } = parseArgs({
  options: {
    seed: { type: 'string' },
    calls: { type: 'string' },
    scenario: { type: 'string', default: 'seeded' },
    callers: { type: 'string', default: '32' },
    mode: { type: 'string', default: 'closed' },
    workers: { type: 'string', default: '1' },
    env: { type: 'string', multiple: true, default: [] },
  },
})
const seed = flags.seed === undefined ? Date.now() % 1_000_000_000 : whole('--seed', flags.seed, 0, 2 ** 31)
const calls = flags.calls === undefined ? undefined : whole('--calls', flags.calls, 100, 10_000_000)
const callers = whole('--callers', flags.callers, 1, 1_000)
const mode = modeOf(flags.mode)
const workers = whole('--workers', flags.workers, 1, 16)
const scenario = scenarioOf(flags.scenario)
const env = {
  [awayModeVariable]: mode,
  [workersVariable]: String(workers),
  ...Object.fromEntries(flags.env.map((text) => [text.split('=', 1)[0] ?? '', text.slice(text.indexOf('=') + 1)])),
}

const interrupted = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    // The second one does not wait: what is left is killed when this process exits.
    if (interrupted.signal.aborted) process.exit(130)
    console.log(`${name}: everything is being ended`)
    interrupted.abort(new Error(name))
  })
}

console.log(`seed ${seed}, scenario ${flags.scenario}, ${scenario.calls} calls, ${callers} at once; schedule:`)
console.log(describeSchedule(scenario.schedule).join('\n'))
process.exitCode = await run()

async function run(): Promise<number> {
  try {
    const say = (line: string): void => console.log(`${new Date().toISOString().slice(11, 23)} ${line}`)
    const result = await runFaults({ seed, scenario, callers, env, say, signal: interrupted.signal })
    console.log(`\n${summary(result)}\n`)
    if (result.wrong.length === 0) {
      console.log('0 lost, 0 double, difference 0.')
      return 0
    }
    console.log(`${complaint(result.wrong)}\n\nkept: ${result.folder}`)
  } catch (error) {
    if (interrupted.signal.aborted) return 130
    console.error(error)
  }
  console.log(`seed ${seed}, schedule:\n${describeSchedule(scenario.schedule).join('\n')}`)
  console.log(`again: npm run faults -- ${commandLine()}`)
  return 1
}

function commandLine(): string {
  const given = process.argv.slice(2).join(' ')
  return flags.seed === undefined ? `--seed ${seed} ${given}`.trimEnd() : given
}

function scenarioOf(name: string): Scenario {
  if (name === 'seeded') return seeded(seed, calls ?? 100_000, { mode, workers })
  if (name === 'sliced') return sliced(seed, calls ?? 100_000, { mode, workers })
  if (name === 'postgres-minute') return postgresAway(60_000)
  if (name === 'redis-restart') return redisRestart(calls ?? 3_000, mode)
  if (name === 'flushall') return flushAll(calls ?? 3_000)
  throw new Error(`--scenario ${name}: seeded, sliced, postgres-minute, redis-restart or flushall`)
}

function modeOf(text: string): AwayMode {
  if (text === 'closed' || text === 'open' || text === 'local') return text
  throw new Error(`--mode ${text}: closed, open or local`)
}

function whole(flag: string, text: string, least: number, most: number): number {
  const number = Number(text)
  if (Number.isInteger(number) && number >= least && number <= most) return number
  throw new Error(`${flag} ${text}: a whole number from ${least} to ${most}`)
}
