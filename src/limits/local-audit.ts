import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { LimitsReading } from './limits-reading.ts'
import { replayRecords } from './local-records.ts'
import { unframe } from './segment-frames.ts'
import type { StoredRecord } from './segment-log.ts'

/**
 * What the segment files of {@link createLocalLimits} hold, without changing them. The caller owns the folder: of a log
 * that a process writes, the end would be missed. There are no counters, because they live in the process; a call that
 * was in flight when it died counts as open, which the next start records as abandoned. A folder that does not exist
 * holds nothing.
 */
export async function readLocalLimits(folder: string): Promise<LimitsReading> {
  const names = await readdir(folder).catch((error: unknown): string[] => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw error
  })
  const through = names.includes('acknowledged') ? Number(await readFile(join(folder, 'acknowledged'), 'utf8')) || 0 : 0
  const records: StoredRecord[] = []
  for (const name of names.filter((candidate) => /^\d{16}\.segment$/.test(candidate)).sort()) {
    const base = Number.parseInt(name, 10)
    const { payloads } = unframe(await readFile(join(folder, name)))
    for (const [index, payload] of payloads.entries()) records.push({ sequence: base + index, payload })
  }
  const { open, settled, unreadable } = replayRecords(records)
  return {
    counters: undefined,
    reservations: [...open.values()].map((event) => ({ event, holds: [] })),
    events: settled.flatMap(({ sequence, events }) =>
      events.map((event) => ({ event, acknowledged: sequence <= through })),
    ),
    unreadable: unreadable.length,
  }
}
