/** Child process of the benchmark: reads streams as ordered, and reports. A closed loop: each caller waits for its end. */
import { connectGrpcStreams, connectSse } from './stream-clients.ts'
import { isStreamOrder, type StreamClient, type StreamOrder, type StreamReport } from './stream-orders.ts'

process.on('disconnect', () => process.exit())
process.on('message', (order) => {
  if (isStreamOrder(order)) void run(order).then((report) => process.send?.(report))
})
process.send?.({ ready: true })

async function run(order: StreamOrder): Promise<StreamReport> {
  const firstTokens: number[] = []
  const shared = order.wire === 'grpc' ? connectGrpcStreams(order) : undefined
  const clients: StreamClient[] = Array.from({ length: order.callers }, () => shared ?? connectSse(order))
  let allTokens = 0
  let allStreams = 0
  let between = 0
  let betweenMs = 0
  let failure: string | null = null
  const measureFrom = performance.now() + order.warmupMs
  const until = measureFrom + order.durationMs
  let lastEnd = measureFrom

  async function caller(client: StreamClient): Promise<void> {
    let start = performance.now()
    while (start < until && failure === null) {
      try {
        const { firstMs, lastMs, tokens } = await client.stream()
        if (tokens < 2) throw new Error(`a stream with ${tokens} tokens`)
        allTokens += tokens
        allStreams += 1
        const end = performance.now()
        if (start >= measureFrom && end <= until) {
          firstTokens.push(firstMs - start)
          between += tokens - 1
          betweenMs += lastMs - firstMs
          lastEnd = end
        }
        start = end
      } catch (error) {
        failure ??= String(error)
      }
    }
  }

  await Promise.all(clients.map(caller))
  for (const client of clients) client.close()
  firstTokens.sort((a, b) => a - b)
  const percentile = (share: number): number =>
    firstTokens[Math.min(firstTokens.length - 1, Math.floor(firstTokens.length * share))] ?? Number.NaN
  return {
    streams: firstTokens.length,
    allTokens,
    allStreams,
    elapsedMs: lastEnd - measureFrom,
    firstTokenP50Ms: percentile(0.5),
    firstTokenP99Ms: percentile(0.99),
    perTokenUs: (1_000 * betweenMs) / between,
    failure: failure ?? (firstTokens.length === 0 ? 'no stream ended in the measured time' : null),
  }
}
