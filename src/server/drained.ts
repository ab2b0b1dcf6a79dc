import type { Writable } from 'node:stream'

/** Resolves when `stream` can take more after it was full, or takes nothing any more. */
export async function drained(stream: Writable): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const again = (): void => resolve()
  stream.on('drain', again)
  stream.on('close', again)
  await promise
  stream.off('drain', again)
  stream.off('close', again)
}
