import { fdatasync, ftruncateSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'

/** The part of a file that a segment uses; tests give one that fails. */
export interface SegmentFile {
  /**
   * Hands bytes to the file system, and returns how many it took. Not asynchronous: to write into the page cache takes
   * 2 µs of CPU, and 36 µs by way of Node's thread pool.
   */
  write(bytes: Uint8Array, from: number, length: number, position: number): number
  truncate(size: number): void
  /** Resolves when everything that was written is on the disk. */
  datasync(): Promise<void>
  close(): Promise<void>
}

/** Opens a file for a segment; `flags` as those of `fs.open`. */
export async function openSegmentFile(path: string, flags: string): Promise<SegmentFile> {
  const handle = await open(path, flags)
  return {
    write: (bytes, from, length, position) => writeSync(handle.fd, bytes, from, length, position),
    truncate: (size) => ftruncateSync(handle.fd, size),
    datasync: () =>
      new Promise((done, failed) => {
        fdatasync(handle.fd, (error) => (error === null ? done() : failed(error)))
      }),
    close: () => handle.close(),
  }
}
