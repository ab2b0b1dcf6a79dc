/** What takes parts down; run last to first. */
export type Closers = (() => Promise<unknown>)[]
