/** Where events go. */
export interface EventSink<T> {
  /**
   * Resolves when all are kept where they went, in their order; rejects when that is not certain, and then the same
   * events may come again. One call at a time. Settles within a bound of its own.
   */
  send(events: readonly T[]): Promise<void>
  /** Resolves when events could be sent now, else rejects with a reason. Settles within a bound of its own. */
  check(): Promise<void>
  /** Lets go of every connection. Never rejects. */
  close(): Promise<void>
}
