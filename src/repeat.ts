import { pause } from './pause.ts'

/** Work that is done again and again. */
export interface Repeating {
  /** Begins the work no more, aborts its signal, and resolves when what runs of it is over. */
  stop(): Promise<void>
}

/**
 * Does `work` now, and again `everyMs` milliseconds after each end of it, until stopped: never twice at once. Between, it
 * keeps no process alive. `work` deals with its failures itself; one that it rejects with ends the repetition.
 */
export function repeat(everyMs: number, work: (signal: AbortSignal) => Promise<void>): Repeating {
  const stopping = new AbortController()
  const { signal } = stopping

  async function run(): Promise<void> {
    while (!signal.aborted) {
      await work(signal)
      await pause(everyMs, signal, { ref: false })
    }
  }

  const running = run()
  return {
    stop() {
      stopping.abort()
      return running
    },
  }
}
