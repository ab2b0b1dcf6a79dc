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
  /** Tokens that each answer must have, in their order; absent where answers are no streams. */
  readonly tokens?: number
}

/** Of calls begun and ended in the measured time, after the warm-up. */
export interface Latencies {
  readonly p50Ms: number
  readonly p99Ms: number
  readonly p999Ms: number
  /** From the request to the first token; NaN where answers are no streams, as are the other figures of tokens. */
  readonly firstTokenP50Ms: number
  readonly firstTokenP99Ms: number
  /** From the first token of an answer to its last one, for each token between them. */
  readonly perTokenUs: number
}

/** What came of it. */
export interface LoadReport extends Latencies {
  /** Calls that ended in the measured time. */
  readonly calls: number
  /** Calls of the warm-up and those that were under way at the end are counted here too. */
  readonly allCalls: number
  readonly elapsedMs: number
  /** CPU time of the load generator itself, microseconds. */
  readonly loadCpuUs: number
  /** Text of the first failure; a measurement with one is worthless. */
  readonly failure: string | null
}

/** True for a {@link LoadOrder} that came over a process channel. */
export function isLoadOrder(value: unknown): value is LoadOrder {
  return typeof value === 'object' && value !== null && 'wire' in value && 'callers' in value
}

/** True for a {@link LoadReport} that came over a process channel. */
export function isLoadReport(value: unknown): value is LoadReport {
  return typeof value === 'object' && value !== null && 'p99Ms' in value && 'failure' in value
}
