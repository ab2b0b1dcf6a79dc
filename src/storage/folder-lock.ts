import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** A living process has the folder. */
export class FolderInUse extends Error {
  override readonly name = 'FolderInUse'
}

/**
 * Makes this process the only owner of a folder, by a file `lock` that names it; returns what gives it back. Throws
 * {@link FolderInUse} when a living process owns the folder. A lock left by a process that died is taken over; on Linux the start time and the
 * boot tell a process from a later one with the same number, as the first process of a container always has.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, 'lock')
  const self = `${process.pid} ${(await identity(process.pid)) ?? ''}`
  for (let attempt = 0; attempt < 5; attempt++) {
    if (await claim(path, self)) return () => rm(path, { force: true })
    const holder = (await readFile(path, 'utf8').catch(() => '')).trim()
    const [pid = '', ...rest] = holder.split(' ')
    if (await isAlive(Number(pid), rest.join(' '))) {
      throw new FolderInUse(`${folder} is in use by process ${pid}; each process needs a folder of its own`)
    }
    await removeStale(path, holder)
  }
  throw new FolderInUse(`${path} cannot be taken: other processes compete for it`)
}

/** Makes the lock appear with its content, or not at all. */
async function claim(path: string, self: string): Promise<boolean> {
  const draft = `${path}.${process.pid}`
  await writeFile(draft, self)
  try {
    await link(draft, path)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  } finally {
    await rm(draft, { force: true })
  }
}

/** Moved away before it is removed: if it turns out to be a fresh lock of somebody faster, it is put back. */
async function removeStale(path: string, holder: string): Promise<void> {
  const aside = `${path}.stale.${process.pid}`
  try {
    await rename(path, aside)
  } catch {
    // Somebody was faster.
    return
  }
  const moved = (await readFile(aside, 'utf8')).trim()
  // Where that fails, yet another one has claimed it.
  if (moved !== holder) await link(aside, path).catch(() => {})
  await rm(aside, { force: true })
}

async function isAlive(pid: number, known: string): Promise<boolean> {
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: alive, of another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
  const now = await identity(pid)
  if (now === undefined || known === '') return now !== 'zombie'
  return now === known
}

/** When the process started, on which boot; undefined where the system does not tell. */
async function identity(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
    // Fields from the third on; the second is the command, which may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z') return 'zombie'
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
    return `${fields[19] ?? ''} ${boot.trim()}`
  } catch {
    return undefined
  }
}
