import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const variable = 'TOLLGATE_TEST_USED_SERVERS'

/** Notes a server that a test talked to, for the line at the end of the run; for example "Postgres 18.4, embedded". */
export function noteServer(name: string): void {
  const file = process.env[variable]
  if (file !== undefined) appendFileSync(file, `${name}\n`)
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
