import { type FileHandle, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../storage/postgres.ts'
import type { Settled } from './limits.ts'
import { syncFolder } from './segment-log.ts'
import { type ToldPeriod, ToldThresholds } from './told-thresholds.ts'

/**
 * What was told of thresholds, on disk, so that a restart tells nothing again. One line each time that a threshold is
 * told; when the file is opened, it is written anew without the months that are over.
 */
export class ToldFile {
  readonly #file: FileHandle
  readonly #told: ToldThresholds
  #writing: Promise<unknown> = Promise.resolve()

  private constructor(file: FileHandle, told: ToldThresholds) {
    this.#file = file
    this.#told = told
  }

  /** A line that cannot be understood, as the last one may be after a crash, is left out: it is told once more. */
  static async open(folder: string, nowMs: number): Promise<ToldFile> {
    const path = join(folder, 'told')
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return ''
      throw error
    })
    const told = new ToldThresholds()
    for (const line of text.split('\n')) {
      const period = parse(line)
      if (period !== undefined && period.endsAtMs > nowMs) told.add(period)
    }
    const file = await open(`${path}.new`, 'w', 0o600)
    try {
      await file.writeFile(told.all().map(lineOf).join(''))
      await file.sync()
      await rename(`${path}.new`, path)
      await syncFolder(folder)
    } catch (error) {
      await file.close()
      throw error
    }
    return new ToldFile(file, told)
  }

  periods(): ToldPeriod[] {
    return this.#told.all()
  }

  /** Resolves when it is durable that these were told. */
  async tell(crossed: Settled['crossed']): Promise<void> {
    const lines = this.#told.tell(crossed).map(lineOf).join('')
    const write = this.#writing.then(async () => {
      await this.#file.writeFile(lines)
      await this.#file.datasync()
    })
    // Only the order: a failure is told to whoever writes.
    this.#writing = write.catch(() => undefined)
    await write
  }

  async close(): Promise<void> {
    await this.#writing
    await this.#file.close()
  }
}

function lineOf({ key, endsAtMs, told80, told100 }: ToldPeriod): string {
  return `${told80} ${told100} ${endsAtMs} ${key}\n`
}

function parse(line: string): ToldPeriod | undefined {
  const [, told80, told100, endsAtMs, key] = /^(\d{1,16}) (\d{1,16}) (\d{1,16}) (.+)$/.exec(line) ?? []
  if (key === undefined) return undefined
  return { key, endsAtMs: Number(endsAtMs), told80: Number(told80), told100: Number(told100) }
}
