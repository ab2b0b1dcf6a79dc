/** Child process of the benchmark: makes calls as ordered, and reports. A closed loop: each caller waits for its answer. */
import { connectGrpc, connectHttp1 } from './clients.ts'
import { type Client, isLoadOrder, type LoadOrder, type LoadReport } from './orders.ts'

process.on('disconnect', () => process.exit())
process.on('message', (order) => {
  if (isLoadOrder(order)) void run(order).then((report) => process.send?.(report))
})
process.send?.({ ready: true })

async function run(order: LoadOrder): Promise<LoadReport> {
  const latencies = new Float64Array(order.maxCalls)
  const shared = order.wire === 'grpc' ? connectGrpc(order) : undefined
  const clients: Client[] = Array.from({ length: order.callers }, () => shared ?? connectHttp1(order))
  let calls = 0
  let allCalls = 0
  let failure: string | null = null
  const measureFrom = performance.now() + order.warmupMs
  const until = measureFrom + order.durationMs
  let lastEnd = measureFrom

  async function caller(client: Client): Promise<void> {
    let start = performance.now()
    while (start < until && calls < order.maxCalls && failure === null) {
      try {
        await client.call()
      } catch (error) {
        failure ??= String(error)
        return
      }
      const end = performance.now()
      allCalls += 1
      if (start >= measureFrom && end <= until && calls < order.maxCalls) {
        latencies[calls] = end - start
        calls += 1
        lastEnd = end
      }
      start = end
    }
  }

  const cpu = process.cpuUsage()
  await Promise.all(clients.map(caller))
  const { user, system } = process.cpuUsage(cpu)
  for (const client of clients) client.close()
  const sorted = latencies.subarray(0, calls).sort()
  const percentile = (share: number): number => sorted[Math.min(calls - 1, Math.floor(calls * share))] ?? Number.NaN
  return {
    calls,
    allCalls,
    elapsedMs: lastEnd - measureFrom,
    p50Ms: percentile(0.5),
    p99Ms: percentile(0.99),
    loadCpuUs: user + system,
    failure: failure ?? (calls === 0 ? 'no call ended in the measured time' : null),
  }
}
