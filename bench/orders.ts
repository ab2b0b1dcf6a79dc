/** What the load generator is told to do: one measurement. */
export interface LoadOrder {
  readonly wire: 'http1' | 'grpc'
  /** Scheme, host and port. */
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Request body (of gRPC: the message without its frame), base64. */
  readonly body: string
  readonly callers: number
  readonly warmupMs: number
  readonly durationMs: number
  /** Ends the measurement early, however fast the calls are. */
  readonly maxCalls: number
}

/** What came of it. Latencies are of calls begun and ended in the measured time, after the warm-up. */
export interface LoadReport {
  readonly calls: number
  /** Calls of the warm-up and those that were under way at the end are counted here too. */
  readonly allCalls: number
  readonly elapsedMs: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** CPU time of the load generator itself, microseconds. */
  readonly loadCpuUs: number
  /** Text of the first failure; a measurement with one is worthless. */
  readonly failure: string | null
}

/** One client: makes a call and rejects unless the answer is a success. */
export interface Client {
  call(): Promise<void>
  close(): void
}

/** True for a {@link LoadOrder} that came over a process channel. */
export function isLoadOrder(value: unknown): value is LoadOrder {
  return typeof value === 'object' && value !== null && 'wire' in value && 'callers' in value
}

/** True for a {@link LoadReport} that came over a process channel. */
export function isLoadReport(value: unknown): value is LoadReport {
  return typeof value === 'object' && value !== null && 'p99Ms' in value && 'failure' in value
}
