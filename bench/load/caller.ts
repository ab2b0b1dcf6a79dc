import type { TokenReader } from './token-reader.ts'

/** One caller: a call at a time, over a connection that keeps it. */
export interface Caller {
  /** Reads the answers of a stream; undefined where answers are no streams. */
  readonly tokens: TokenReader | undefined
  /** Begins a call; only when there is none under way. */
  send(): void
  close(): void
}

/** Told at the end of each call: why it failed, or undefined of a success. May begin the next call at once. */
export type OnEnd = (failure: string | undefined) => void
