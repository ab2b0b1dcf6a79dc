import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import type { LedgerWriter } from '../metering/ledger-writer.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { startLeftovers } from './leftovers.ts'

let dataDir: string
let told: string[]

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'tollgate-leftovers-'))
  told = []
  const own = dataDir
  onTestFinished(() => rm(own, { recursive: true }))
})

/** Looks once, and opens nothing. */
async function look(): Promise<void> {
  const never = async (): Promise<never> => {
    throw new Error('nothing is to be opened')
  }
  const ledger: LedgerWriter = { write: never, failing: () => undefined }
  const log = pino({ base: null, timestamp: false }, { write: (line) => told.push(JSON.parse(line).msg) })
  const leftovers = await startLeftovers({ dataDir, worker: undefined, open: never, ledger, log })
  await leftovers.stop()
}

test('a folder that cannot be locked is told, because its usage would never be booked', async () => {
  await mkdir(join(dataDir, 'away-2', 'lock'), { recursive: true })
  await look()
  expect(told).toEqual(['what an earlier worker left cannot be taken up'])
})

test('a folder that somebody else has is left to them, without a word', async () => {
  const folder = join(dataDir, 'away-2')
  await mkdir(folder)
  const unlock = await lockFolder(folder)
  await look()
  await unlock()
  expect(told).toEqual([])
})
