import { open, readFile, rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Waits until this process alone may install something, and returns how to let others. A lock whose holder is dead counts
 * for nothing. Throws after `timeoutMs` milliseconds.
 */
export async function installLock(path: string, timeoutMs: number): Promise<() => Promise<void>> {
  for (const deadline = Date.now() + timeoutMs; Date.now() < deadline; await sleep(100)) {
    try {
      const file = await open(path, 'wx')
      await file.write(String(process.pid))
      await file.close()
      return () => rm(path, { force: true })
    } catch (error) {
      const holder = Number(await readFile(path, 'utf8').catch(() => ''))
      if (holder > 0 && !alive(holder)) await rm(path, { force: true })
      else if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
  }
  throw new Error(`${path} stays locked: remove it if nothing is being installed for the tests`)
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
