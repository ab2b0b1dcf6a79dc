import { writeFileSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Of every number that is stored: each stands where the one before it stood. */
const digits = 15

/**
 * The number through which all events are in the ledger, in a small file that is written in place. It survives the death
 * of the process, and not always that of the machine: what is delivered again after that, the ledger absorbs. Were it
 * synced, each batch of the ledger would stand in the way of the syncs that calls wait for.
 */
export class AcknowledgedFile {
  readonly #path: string
  #through: number

  private constructor(path: string, through: number) {
    this.#path = path
    this.#through = through
  }

  /** Without the file, or with one that cannot be understood, everything is delivered again. */
  static async open(folder: string): Promise<AcknowledgedFile> {
    const path = join(folder, 'acknowledged')
    const text = await readFile(path, 'utf8').catch(() => '')
    // Made if it is missing; what is there stays.
    await (await open(path, 'a', 0o600)).close()
    return new AcknowledgedFile(path, /^\d{1,15}\s*$/.test(text) ? Number(text) : 0)
  }

  get through(): number {
    return this.#through
  }

  /** Keeps this number, unless a larger one is kept; throws the problem of the file system. */
  store(through: number): void {
    if (through <= this.#through) return
    this.#through = through
    writeFileSync(this.#path, `${String(through).padStart(digits, '0')}\n`, { flag: 'r+' })
  }
}
