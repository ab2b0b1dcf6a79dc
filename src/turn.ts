/**
 * Calls that come in the same turn of the event loop go on together, step by step: all are authenticated, then all bodies are
 * read, then all are admitted. What a step needs is then in the processor's caches for all but the first of them. Each call by
 * itself, from the bytes of its socket to the bytes for its backend, finds its code and data pushed out by what comes between
 * its steps, most of all by the system's own work on sockets: that costs a third of all CPU at 64 callers. What waits does so for
 * callbacks that are due anyway, and for no timer.
 */
let ending: Promise<void> | undefined

/** Resolves when everything that the system has for this process in this turn was taken in. The same promise for all who ask. */
export function turnsEnd(): Promise<void> {
  ending ??= new Promise((resolve) => setImmediate(endTurn, resolve))
  return ending
}

function endTurn(resolve: () => void): void {
  ending = undefined
  resolve()
}
