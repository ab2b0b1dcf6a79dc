/**
 * Everything that must hold before a change is merged, as one command: prints a line a part with its seconds, the whole
 * output of a part that failed, and exits with 1 if one did. The parts of a lane follow each other, the lanes run side by
 * side.
 */
import { spawn } from 'node:child_process'
import { delimiter } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

interface Part {
  readonly name: string
  readonly command: readonly [program: string, ...args: string[]]
}

const root = fileURLToPath(new URL('../../', import.meta.url))
const partTimeoutMs = 300_000

const lanes: readonly (readonly Part[])[] = [
  [
    // First of its lane: it assembles the protos of others, which the rest of the lane reads.
    { name: 'gen/ follows proto/', command: node('generate.ts', '--check') },
    { name: 'proto lint', command: ['buf', 'lint'] },
    { name: 'proto format', command: ['buf', 'format', '--diff', '--exit-code', '--path', 'proto/marketplace'] },
    { name: 'proto breaks nothing released', command: ['buf', 'breaking', '--against', 'proto/baseline.binpb'] },
    { name: 'proto keeps reference 004', command: node('check-contract.ts') },
    { name: 'docs/http-api.md follows proto/', command: node('route-docs.ts', '--check') },
    { name: 'docs/identity.md follows proto/ and the roles', command: node('permission-docs.ts', '--check') },
    { name: 'docs/configuration.md follows its table', command: node('config-docs.ts', '--check') },
    { name: 'deploy/ lint', command: node('lint-deploy.ts') },
    { name: 'format and lint', command: ['biome', 'check', '.'] },
    { name: 'types', command: ['tsc'] },
  ],
  [{ name: 'unit tests', command: ['vitest', 'run', '--project', 'unit', '--silent', '--reporter', 'minimal'] }],
]

const started = performance.now()
const failed = (await Promise.all(lanes.map(runLane))).flat()
console.log(
  `${failed.length === 0 ? 'All holds' : `${failed.length} failed: ${failed.join(', ')}`} (${since(started)})`,
)
if (failed.length > 0) process.exitCode = 1

async function runLane(parts: readonly Part[]): Promise<string[]> {
  const names: string[] = []
  for (const part of parts) if (!(await run(part))) names.push(part.name)
  return names
}

async function run({ name, command: [program, ...args] }: Part): Promise<boolean> {
  const begun = performance.now()
  const child = spawn(program === 'node' ? process.execPath : `${root}node_modules/.bin/${program}`, args, {
    cwd: root,
    // The tools call each other, and need the project's Node even where this was not started by npm.
    env: { ...process.env, PATH: `${root}node_modules/.bin${delimiter}${process.env.PATH ?? ''}` },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: partTimeoutMs,
  })
  const ended = new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null))
    child.once('close', resolve)
  })
  const [out, err, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  const ok = code === 0
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${name} (${since(begun)})`)
  if (!ok) console.log(`${`${out}${err}`.trimEnd().replaceAll(/^/gm, '       ')}\n`)
  return ok
}

function node(tool: string, ...args: string[]): Part['command'] {
  return ['node', `src/tools/${tool}`, ...args]
}

function since(start: number): string {
  return `${((performance.now() - start) / 1000).toFixed(1)} s`
}
