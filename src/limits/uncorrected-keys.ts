import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../storage/postgres.ts'
import { syncFolder } from './segment-log.ts'

/**
 * Keys of period counters that the shared store must ask the ledger for anew, because usage went past it: on disk, until
 * it was told. One key a line; lines are added, and all of them are cut off when none is left.
 */
export class UncorrectedKeys {
  readonly #file: FileHandle
  /** How often each key was added: one that was added again meanwhile is not removed. */
  readonly #keys: Map<string, number>
  #additions = 0
  #writing: Promise<unknown> = Promise.resolve()

  private constructor(file: FileHandle, keys: readonly string[]) {
    this.#file = file
    this.#keys = new Map(keys.map((key) => [key, 0]))
  }

  /** Takes up what an earlier process left. A line that its death cut short names no counter, which does no harm. */
  static async open(folder: string): Promise<UncorrectedKeys> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const path = join(folder, 'uncorrected')
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return ''
      throw error
    })
    const file = await open(path, 'a')
    await syncFolder(folder)
    return new UncorrectedKeys(
      file,
      text.split('\n').filter((line) => line !== ''),
    )
  }

  get size(): number {
    return this.#keys.size
  }

  /** Resolves when the keys are durable. */
  async add(keys: readonly string[]): Promise<void> {
    this.#additions += 1
    const fresh = keys.filter((key) => !this.#keys.has(key))
    for (const key of keys) this.#keys.set(key, this.#additions)
    // Those that are not fresh may still be on their way to the disk.
    await this.#inOrder(async () => {
      if (fresh.length === 0) return
      try {
        await this.#file.writeFile(`${fresh.join('\n')}\n`)
        await this.#file.datasync()
      } catch (error) {
        for (const key of fresh) this.#keys.delete(key)
        throw error
      }
    })
  }

  /** Hands all keys to `correct`, so many at once, and forgets those that it took. Throws what `correct` throws. */
  async correctAll(atOnce: number, correct: (keys: readonly string[]) => Promise<void>): Promise<number> {
    const before = [...this.#keys]
    for (let from = 0; from < before.length; from += atOnce) {
      const some = before.slice(from, from + atOnce)
      await correct(some.map(([key]) => key))
      for (const [key, addition] of some) {
        if (this.#keys.get(key) === addition) this.#keys.delete(key)
      }
    }
    await this.#inOrder(async () => {
      if (this.#keys.size > 0 || before.length === 0) return
      await this.#file.truncate(0)
    })
    return before.length
  }

  async close(): Promise<void> {
    // Whoever wrote was told.
    await this.#writing.catch(() => undefined)
    await this.#file.close()
  }

  #inOrder(write: () => Promise<void>): Promise<void> {
    const written = this.#writing.catch(() => undefined).then(write)
    this.#writing = written
    return written
  }
}
