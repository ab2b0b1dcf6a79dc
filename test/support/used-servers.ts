import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const variable = 'TOLLGATE_TEST_USED_SERVERS'

/** Notes a server that a test talked to, for the line at the end of the run; for example "Postgres 18.4, embedded". */
export function noteServer(name: string): void {
  const file = process.env[variable]
  if (file !== undefined) appendFileSync(file, `${name}\n`)
}

/** Notes a server by what its binary says of itself, for example "Redis 7.0.15 (/usr/bin/redis-server)". */
export function noteServerBinary(binary: string): void {
  if (process.env[variable] === undefined) return
  const [, name = 'unknown', version = ''] =
    /(\w+) server v=(\S+)/.exec(execFileSync(binary, ['--version'], { encoding: 'utf8' })) ?? []
  noteServer(`${name} ${version} (${binary})`)
}

/** Global setup of the server tests: at the end of the run it says which servers they used. */
export default function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-tests-'))
  const file = join(folder, 'servers')
  writeFileSync(file, '')
  process.env[variable] = file
  return () => {
    const counts = new Map<string, number>()
    for (const name of readFileSync(file, 'utf8').split('\n')) {
      if (name !== '') counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    const list = [...counts].sort().map(([name, n]) => (n === 1 ? name : `${name} (${n} times)`))
    console.log(`Servers used: ${list.length === 0 ? 'none' : list.join('; ')}`)
    rmSync(folder, { recursive: true })
  }
}
