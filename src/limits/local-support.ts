import { cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { FakeLedger } from './conformance-support.ts'
import type { Limits } from './limits.ts'
import { createLocalLimits, type LocalLimitsOptions } from './local-limits.ts'

/** Folders with limits of one process, for tests: begun, left by a crash, and cleaned up. */
export class LocalFolders {
  readonly #folders: string[] = []
  readonly #opened: Limits[] = []

  async make(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'tollgate-limits-'))
    this.#folders.push(folder)
    return folder
  }

  /** Limits on a ledger that holds nothing, unless told otherwise. */
  async start(folder: string, changes: Partial<LocalLimitsOptions> = {}): Promise<Limits> {
    const { seed } = new FakeLedger()
    const limits = await createLocalLimits({ folder, log: pino({ level: 'silent' }), seed, ...changes })
    this.#opened.push(limits)
    return limits
  }

  /** The folder as a process leaves it that dies now: what is written, without the lock of the living. */
  async crash(folder: string): Promise<string> {
    const copy = await this.make()
    await cp(folder, copy, { recursive: true })
    await rm(join(copy, 'lock'))
    return copy
  }

  async clear(): Promise<void> {
    for (const limits of this.#opened.splice(0)) await limits.close()
    for (const folder of this.#folders.splice(0)) await rm(folder, { recursive: true, force: true })
  }
}

/** Names of the segment files in a folder, oldest first. */
export async function segmentsOf(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.endsWith('.segment')).sort()
}
