import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { UsageEvent } from '../metering/usage-event.ts'
import type { LimitsReading, LoggedEvent } from './limits-reading.ts'
import { decodeRecord } from './local-records.ts'
import { unframe } from './segment-frames.ts'

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
  const open = new Map<string, UsageEvent>()
  const events: LoggedEvent[] = []
  let unreadable = 0
  for (const name of names.filter((candidate) => /^\d{16}\.segment$/.test(candidate)).sort()) {
    const base = Number.parseInt(name, 10)
    const { payloads } = unframe(await readFile(join(folder, name)))
    for (const [index, payload] of payloads.entries()) {
      const record = decodeRecord(payload)
      if (record === undefined) unreadable += 1
      else if (record.type === 'admitted') open.set(record.id, record.event)
      else {
        open.delete(record.id)
        events.push({ event: record.event, acknowledged: base + index <= through })
      }
    }
  }
  return {
    counters: undefined,
    reservations: [...open.values()].map((event) => ({ event, holds: [] })),
    events,
    unreadable,
  }
}
