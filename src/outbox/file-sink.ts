import { open } from 'node:fs/promises'
import type { OutboxSink } from './outbox-sink.ts'

/**
 * Appends each event to a file as one line of JSON, and waits until the lines are on the disk. The file is opened anew each
 * time, so that it may be renamed to rotate it. A line that was cut off by a crash or a full disk stays, ended, before the
 * same event as a whole: readers pass over what is no JSON.
 */
export function createFileSink(path: string): OutboxSink {
  return {
    name: 'file',
    async deliver(events) {
      const file = await open(path, 'a+', 0o640)
      try {
        const { size } = await file.stat()
        const last = Buffer.alloc(1)
        if (size > 0) await file.read(last, 0, 1, size - 1)
        const isCut = size > 0 && last[0] !== newline
        await file.appendFile(`${isCut ? '\n' : ''}${events.map((event) => `${JSON.stringify(event)}\n`).join('')}`)
        await file.datasync()
      } finally {
        await file.close()
      }
      return events.map(() => 'delivered')
    },
    close: async () => {},
  }
}

const newline = 0x0a
