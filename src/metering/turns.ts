/** Lets one at a time do something that others wait for, in the order in which they asked. */
export interface Turns {
  /** Resolves when everybody who asked before is done; call what it resolves to when done, once. */
  take(): Promise<() => void>
}

/** Turns of this process; who never says that it is done holds up all others. */
export function createTurns(): Turns {
  let last: Promise<void> = Promise.resolve()
  return {
    take: () => {
      const before = last
      const { promise, resolve } = Promise.withResolvers<void>()
      last = promise
      return before.then(() => resolve)
    },
  }
}
