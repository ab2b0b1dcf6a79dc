/** What the load generator of streams is told to do: one measurement. */
export interface StreamOrder {
  readonly wire: 'sse' | 'grpc'
  /** Scheme, host and port. */
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Request body (of gRPC: the message without its frame), base64. */
  readonly body: string
  readonly callers: number
  readonly warmupMs: number
  readonly durationMs: number
}

/** What came of it; of streams begun and ended in the measured time. */
export interface StreamReport {
  readonly streams: number
  /** Of all streams, those of the warm-up and at the end too. */
  readonly allTokens: number
  readonly allStreams: number
  readonly elapsedMs: number
  /** From the request to the first token. */
  readonly firstTokenP50Ms: number
  readonly firstTokenP99Ms: number
  /** From the first token to the last one, for each token between them. */
  readonly perTokenUs: number
  /** Text of the first failure; a measurement with one is worthless. */
  readonly failure: string | null
}

/** When the tokens of a stream came, in milliseconds of performance.now(). */
export interface StreamTimes {
  readonly firstMs: number
  readonly lastMs: number
  readonly tokens: number
}

/** Makes one stream after the other; rejects unless it ended as a success. */
export interface StreamClient {
  stream(): Promise<StreamTimes>
  close(): void
}

/** True for a {@link StreamOrder} that came over a process channel. */
export function isStreamOrder(value: unknown): value is StreamOrder {
  return typeof value === 'object' && value !== null && 'wire' in value && 'durationMs' in value
}

/** True for a {@link StreamReport} that came over a process channel. */
export function isStreamReport(value: unknown): value is StreamReport {
  return typeof value === 'object' && value !== null && 'perTokenUs' in value && 'failure' in value
}
