import { type Books, type Comparison, compareBooks, type Finding } from './books.ts'

export interface Audit extends Comparison {
  /** Findings that two readings in a row showed alike: the books do not balance. */
  readonly differences: readonly Finding[]
  /** Findings of the last reading that changed with every reading: calls went on, and nothing can be said. */
  readonly moving: readonly Finding[]
  readonly readings: number
}

export interface AuditOptions {
  readonly read: () => Promise<Books>
  /** Waits between two readings. */
  readonly pause: () => Promise<void>
  /** At least 2. */
  readonly mostReadings: number
}

/**
 * Reads until the books balance, or until two readings in a row find the same.
 *
 * The stores are read one after the other while calls go on, so one reading may see a call between two of them. Hence:
 * a reading without a finding balances; a finding counts when the next reading repeats it with the same figures, which a
 * passing call does not do, because it changes at least one figure on its way; the rest is "moving". What is not seen is
 * an error that a call in motion happens to make up for, to the token, at the moment of the only reading; the next run
 * sees it.
 */
export async function auditBooks({ read, pause, mostReadings }: AuditOptions): Promise<Audit> {
  let before = new Set<string>()
  for (let readings = 1; ; readings += 1) {
    const comparison = compareBooks(await read())
    const repeated = (finding: Finding): boolean => before.has(JSON.stringify(finding))
    const differences = comparison.findings.filter(repeated)
    const moving = comparison.findings.filter((finding) => !repeated(finding))
    if (moving.length === 0 || readings >= mostReadings) return { ...comparison, differences, moving, readings }
    before = new Set(comparison.findings.map((finding) => JSON.stringify(finding)))
    await pause()
  }
}
