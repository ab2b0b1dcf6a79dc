import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { syncFolder } from './segment-log.ts'

/** The number through which all events are in the ledger, in a small file that is replaced as a whole. */
export class AcknowledgedFile {
  readonly #folder: string
  #through: number
  #stored: number
  #storing: Promise<void> | undefined

  private constructor(folder: string, through: number) {
    this.#folder = folder
    this.#through = through
    this.#stored = through
  }

  /** Without the file, or with one that cannot be understood, everything is delivered again: the ledger absorbs it. */
  static async open(folder: string): Promise<AcknowledgedFile> {
    const text = await readFile(join(folder, 'acknowledged'), 'utf8').catch(() => '0')
    const through = /^\d{1,15}\s*$/.test(text) ? Number(text) : 0
    return new AcknowledgedFile(folder, through)
  }

  get through(): number {
    return this.#through
  }

  /** Resolves when this number or a later one is durable; calls that come together share a write. */
  async store(through: number): Promise<void> {
    this.#through = Math.max(this.#through, through)
    while (this.#stored < through) {
      this.#storing ??= this.#replace().finally(() => {
        this.#storing = undefined
      })
      await this.#storing
    }
  }

  async #replace(): Promise<void> {
    const through = this.#through
    const path = join(this.#folder, 'acknowledged')
    const file = await open(`${path}.new`, 'w')
    try {
      await file.writeFile(`${through}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(`${path}.new`, path)
    await syncFolder(this.#folder)
    this.#stored = through
  }
}
