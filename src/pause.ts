import { setTimeout as delay } from 'node:timers/promises'

/**
 * Waits `ms` milliseconds, or until `signal` is aborted. Never rejects: who must know which it was looks at the signal.
 * With `ref: false` the wait keeps no process alive.
 */
export async function pause(ms: number, signal: AbortSignal, { ref = true } = {}): Promise<void> {
  // The abort is the only thing that makes it reject.
  await delay(ms, undefined, { signal, ref }).catch(() => {})
}
