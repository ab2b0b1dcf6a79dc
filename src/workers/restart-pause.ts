/** A worker that lived this long died for a reason of its own: the next one that dies is the first again. */
export const settledMs = 60_000

const firstMs = 100
const longestMs = 10_000

/** Pause before a dead worker is replaced, in milliseconds; `deaths` in a row before it, none of which had settled. */
export function restartPauseMs(deaths: number): number {
  return Math.min(firstMs * 2 ** deaths, longestMs)
}
