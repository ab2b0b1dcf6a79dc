/** What every worker knows of all of them; the primary tells it at each change. */
export interface WorkersView {
  /** Process id of the primary. */
  readonly primary: number
  /** How many workers there should be. */
  readonly expected: number
  /** By slot. */
  readonly workers: readonly WorkerState[]
  /** Workers that took the place of one that died, since the start. */
  readonly replaced: number
  /** Workers that took the place of one that was asked to leave. */
  readonly restarted: number
  /** All of them leave. */
  readonly isLeaving: boolean
}

export interface WorkerState {
  readonly slot: number
  /** 0: between two processes. */
  readonly pid: number
  /** Unix milliseconds of the start of the process, or of the death of the one before. */
  readonly sinceMs: number
  readonly state: 'starting' | 'serving' | 'leaving' | 'dead'
  /** Processes that this slot had and that died. */
  readonly deaths: number
}

/** Workers that take calls. */
export function servingOf({ workers }: WorkersView): number {
  return workers.filter(({ state }) => state === 'serving').length
}

/** The view as health shows it. */
export function describeWorkers(view: WorkersView): object {
  const { primary, expected, replaced, restarted, workers } = view
  const list = workers.map(({ sinceMs, ...worker }) => ({ ...worker, since: new Date(sinceMs).toISOString() }))
  return { expected, serving: servingOf(view), replaced, restarted, primary, list }
}
