import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ConnectConformance, connectConformance, run, toolTimeoutMs } from '../support/tools.ts'
import { suitesWithoutTrailers } from './suites.ts'

let conformance: ConnectConformance
let folder: string

beforeAll(async () => {
  conformance = await connectConformance()
  folder = await mkdtemp(join(tmpdir(), 'tollgate-suites-'))
}, toolTimeoutMs)

afterAll(async () => {
  if (folder !== undefined) await rm(folder, { recursive: true })
})

test('the wire passes every case of connectrpc’s conformance suites that it serves', async () => {
  const suites = await suitesWithoutTrailers(conformance.suites, folder)
  const ran = await run(
    conformance.program,
    [
      ...['--mode', 'server', '--conf', join(import.meta.dirname, 'config.yaml')],
      // Each is given ten seconds to start, so they start one by one.
      ...['--max-servers', '1'],
      ...suites.flatMap((file) => ['--test-file', file]),
      ...['--', process.execPath, join(import.meta.dirname, 'main.ts')],
    ],
    { timeoutMs: 110_000 },
  )
  expect(ran.stdout + ran.stderr).not.toContain('FAILED')
  expect(ran.stdout).toContain('Total cases: 1664\n1664 passed, 0 failed')
  expect(ran.code).toBe(0)
})
