/** Work of one name is done one after the other, in order; of different names beside each other. */
export type Lines = <T>(name: string, work: () => Promise<T>) => Promise<T>

/**
 * @param longest work of one name that is under way or waits; what comes beyond it is refused with what `full` makes.
 */
export function createLines(longest: number, full: () => Error): Lines {
  const lines = new Map<string, { last: Promise<unknown>; length: number }>()
  return async (name, work) => {
    const line = lines.get(name) ?? { last: Promise.resolve(), length: 0 }
    if (line.length >= longest) throw full()
    lines.set(name, line)
    line.length += 1
    const mine = line.last.then(work)
    // The next one waits for its end, whatever that is; who asked for the work is told.
    line.last = mine.catch(() => {})
    try {
      return await mine
    } finally {
      line.length -= 1
      if (line.length === 0) lines.delete(name)
    }
  }
}
