import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { eventually } from './support/eventually.ts'
import { scratchDir, spawnTollgate } from './support/tollgate.ts'

let dataDir = ''
beforeEach(async () => {
  dataDir = await scratchDir()
})
afterEach(async () => {
  await rm(dataDir, { recursive: true, force: true })
})

const timeout = 60_000
const postgresRuns = (): boolean => existsSync(join(dataDir, 'postgres/data/postmaster.pid'))

test('a SIGTERM during the start ends the embedded Postgres too, and leaves with 0', { timeout }, async () => {
  const { child, output } = spawnTollgate(['serve'], { TOLLGATE_DATA_DIR: dataDir, HOST: '127.0.0.1', PORT: '0' })
  const ended = once(child, 'exit')
  await eventually(() => output().includes('started the embedded Postgres'), { timeoutMs: timeout })
  child.kill('SIGTERM')
  expect(await ended, output()).toEqual([0, null])
  expect(postgresRuns()).toBe(false)
})

test('a port that is taken is told in words, and nothing stays behind', { timeout }, async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = addressOf(other.address())
  const env = { TOLLGATE_DATA_DIR: dataDir, HOST: '127.0.0.1', PORT: String(port) }
  const { child, output } = spawnTollgate(['serve'], env)
  expect(await once(child, 'exit')).toEqual([1, null])
  expect(output()).toContain(`Port ${port} of 127.0.0.1 is in use. Set PORT to a free one.`)
  expect(postgresRuns()).toBe(false)
  other.close()
  await once(other, 'close')
})

function addressOf(address: AddressInfo | string | null): AddressInfo {
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  return address
}
