import type { Call } from '../call.ts'
import type { KeyStanding } from '../identity/key-verifier.ts'
import { PassingMap } from '../passing-map.ts'
import { keyIdOf } from './plan.ts'

export interface OpenCallsOptions {
  /** How a key stands at the moment. Rejects when nobody can know: its calls go on. */
  readonly standingOf: (keyId: string) => Promise<KeyStanding>
  /** Unix milliseconds. */
  readonly now: () => number
}

/** Running calls of services that have them end with their key. */
export interface OpenCalls {
  /** Ends the call when its key does; returns what is to be called when the call is over. Calls without a key never end so. */
  follow(call: Call): () => void
  /** To be called when the control plane changed. */
  recheck(): void
  /** Keys with running calls, for tests. */
  size(): number
}

/**
 * Follows keys that have running calls: it looks at such a key when its first call comes, at each change of the control plane,
 * and at the moment at which it expires. Keys of other calls cost nothing.
 */
export function createOpenCalls({ standingOf, now }: OpenCallsOptions): OpenCalls {
  const followed = new Map<string, Followed>()

  async function look(keyId: string): Promise<void> {
    // A key that cannot be read keeps its calls, and is looked at again at the next change.
    const standing = await standingOf(keyId).catch(() => undefined)
    // Asked for now: the calls may be others than before the wait.
    const key = followed.get(keyId)
    if (key === undefined || standing === undefined) return
    clearTimeout(key.timer)
    if (standing.refusal === undefined) {
      if (standing.expiresAtMs === undefined) return
      const waitMs = Math.min(longestTimerMs, Math.max(1, standing.expiresAtMs - now()))
      key.timer = setTimeout(() => void look(keyId), waitMs)
      return
    }
    for (const call of key.calls.values()) call.abort(standing.refusal)
  }

  function leave(keyId: string, call: Call): void {
    const key = followed.get(keyId)
    key?.calls.delete(call.id)
    if (key === undefined || key.calls.size > 0) return
    clearTimeout(key.timer)
    followed.delete(keyId)
  }

  return {
    follow(call) {
      const keyId = keyIdOf(call)
      if (keyId === '') return () => {}
      const key = followed.get(keyId) ?? { calls: new PassingMap<string, Call>(), timer: undefined }
      followed.set(keyId, key)
      key.calls.set(call.id, call)
      // The key may have ended between its check and now.
      void look(keyId)
      return () => leave(keyId, call)
    },
    recheck() {
      for (const keyId of followed.keys()) void look(keyId)
    },
    size: () => followed.size,
  }
}

interface Followed {
  readonly calls: PassingMap<string, Call>
  /** Runs out when the key expires. */
  timer: NodeJS.Timeout | undefined
}

/** Node's timers hold no more; a key that expires later is looked at again then. */
const longestTimerMs = 2_147_483_647
