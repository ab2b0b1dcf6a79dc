import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { lockFolder } from '../storage/folder-lock.ts'

/**
 * Folder of what a process uses while Redis is away. The first worker has that of a process that is alone, so that either
 * takes up what the other one left.
 */
export function awayFolder({ dataDir }: { readonly dataDir: string }, slot = 1): string {
  return join(dataDir, slot === 1 ? 'away' : `away-${slot}`)
}

/** Slots that have a folder. */
export async function slotsWithFolder(dataDir: string): Promise<number[]> {
  const slots = (await readdir(dataDir)).map((name) => /^away(?:-(\d{1,6}))?$/.exec(name))
  return slots.flatMap((found) => (found === null ? [] : [Number(found[1] ?? 1)]))
}

/**
 * Makes this process the only user of its folder, and returns what gives it back. Waits up to half a minute for another
 * one that has it: a worker that takes up what is in there, or one of before whose primary was killed and that still ends
 * its calls.
 */
export async function takeFolder(folder: string): Promise<() => Promise<void>> {
  const untilMs = performance.now() + 30_000
  for (;;) {
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      return await lockFolder(folder)
    } catch (error) {
      if (performance.now() > untilMs) throw error
    }
    await delay(100)
  }
}
