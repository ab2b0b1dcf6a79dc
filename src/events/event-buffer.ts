/**
 * The buffer between whoever publishes and a sink that may be slow or away.
 *
 * - A **batch** is the oldest events that wait, `batchMax` at most. It goes out when so many wait, or `lingerMs` after
 *   the first of them came, one batch at a time, so that events stay in order.
 * - A batch stays in the buffer until its sink took it. After a failure the oldest go out again, with a pause that grows
 *   up to `retryMaxMs`, for as long as it takes.
 * - At most `capacity` events wait, those of the batch on its way included. When it is full, the newest is dropped.
 */
import type { EventSink } from './event-sink.ts'

export interface EventBufferOptions<T> {
  readonly sink: Pick<EventSink<T>, 'send' | 'check'>
  /** Told once of each event that the sink took; must not throw. */
  readonly onSent: (event: T) => void
  /** Told once of each event that is given up; must not throw. */
  readonly onDropped: (event: T) => void
  /** Told when sending begins to fail (with the reason) and when it works again (without); must not throw. */
  readonly onChange: (failing: string | undefined) => void
  /** Default 100. */
  readonly batchMax?: number
  /** Default 5000. */
  readonly lingerMs?: number
  /** Default 10 000. */
  readonly capacity?: number
  /** First and longest pause after a failure; defaults 200 and 5000. */
  readonly retryMinMs?: number
  readonly retryMaxMs?: number
  /** Longest wait of {@link EventBuffer.close}; default 3000. */
  readonly closeTimeoutMs?: number
  /** Milliseconds that never go back; default performance.now. */
  readonly now?: () => number
  /** Runs something later and hands back what cancels it; default setTimeout. */
  readonly setTimer?: (run: () => void, ms: number) => () => void
  /** 0 to 1, spreads the retries of many processes; default Math.random. */
  readonly random?: () => number
}

export interface EventBuffer<T> {
  /** Takes an event, or drops it. Sends nothing itself: it costs the caller an append. Never throws. */
  publish(event: T): void
  state(): EventBufferState
  /** Sends what waits, within its bound, and drops the rest. What is published from now on is dropped. Never rejects. */
  close(): Promise<void>
}

export interface EventBufferState {
  /** Events that wait. */
  readonly buffered: number
  /** What came of the last attempt; undefined when it succeeded, or none was made yet. */
  readonly failing: string | undefined
}

/** See the head of this file. Asks the sink at once whether it can be reached, and goes on asking until it can. */
export function createEventBuffer<T>(options: EventBufferOptions<T>): EventBuffer<T> {
  const { sink, onSent, onDropped, onChange } = options
  const batchMax = options.batchMax ?? 100
  const lingerMs = options.lingerMs ?? 5_000
  const capacity = options.capacity ?? 10_000
  const now = options.now ?? (() => performance.now())
  const setTimer = options.setTimer ?? startTimer
  const waiting: { readonly event: T; readonly atMs: number }[] = []
  let phase: 'open' | 'closing' | 'closed' = 'open'
  let isSending = false
  let cancelTimer = (): void => {}
  let onEmpty = (): void => {}
  let failures = 0
  let failing: string | undefined

  function publish(event: T): void {
    if (phase !== 'open' || waiting.length >= capacity) {
      onDropped(event)
      return
    }
    waiting.push({ event, atMs: now() })
    // In between, the timer is set already; while a batch is on its way or failed, its end sets the next one.
    if (!isSending && failures === 0 && (waiting.length === 1 || waiting.length === batchMax)) arm()
  }

  function arm(): void {
    cancelTimer()
    const pauseMs = nextPauseMs()
    if (pauseMs !== undefined && phase !== 'closed') cancelTimer = setTimer(attempt, pauseMs)
  }

  /** Time until the next attempt; undefined when there is nothing to do. */
  function nextPauseMs(): number | undefined {
    if (failures > 0) return retryPauseMs(options, failures)
    const [first] = waiting
    if (first === undefined) return undefined
    if (waiting.length >= batchMax || phase === 'closing') return 0
    return Math.max(0, first.atMs + lingerMs - now())
  }

  function attempt(): void {
    cancelTimer()
    isSending = true
    const batch = waiting.slice(0, batchMax).map(({ event }) => event)
    const sent = batch.length === 0 ? sink.check() : sink.send(batch)
    sent.then(
      () => succeed(batch),
      (error: unknown) => fail(error),
    )
  }

  function succeed(batch: readonly T[]): void {
    isSending = false
    // Given up meanwhile: those events were told of already.
    if (phase === 'closed') return
    waiting.splice(0, batch.length)
    for (const event of batch) onSent(event)
    if (failing !== undefined) onChange(undefined)
    failures = 0
    failing = undefined
    afterAttempt()
  }

  function fail(error: unknown): void {
    isSending = false
    if (phase === 'closed') return
    const isNew = failing === undefined
    failures += 1
    failing = error instanceof Error ? error.message : String(error)
    if (isNew) onChange(failing)
    afterAttempt()
  }

  function afterAttempt(): void {
    if (waiting.length === 0) onEmpty()
    arm()
  }

  async function close(): Promise<void> {
    if (phase !== 'open') return
    phase = 'closing'
    if (waiting.length > 0) {
      const { promise, resolve } = Promise.withResolvers<void>()
      onEmpty = resolve
      const cancelLate = setTimer(resolve, options.closeTimeoutMs ?? 3_000)
      if (!isSending) attempt()
      await promise
      cancelLate()
    }
    phase = 'closed'
    cancelTimer()
    for (const { event } of waiting.splice(0)) onDropped(event)
  }

  attempt()
  return { publish, state: () => ({ buffered: waiting.length, failing }), close }
}

function retryPauseMs(
  options: Pick<EventBufferOptions<never>, 'retryMinMs' | 'retryMaxMs' | 'random'>,
  failures: number,
) {
  const { retryMinMs = 200, retryMaxMs = 5_000, random = Math.random } = options
  return Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(failures - 1, 20)) * (0.5 + random() / 2)
}

function startTimer(run: () => void, ms: number): () => void {
  const timer = setTimeout(run, ms)
  return () => clearTimeout(timer)
}
