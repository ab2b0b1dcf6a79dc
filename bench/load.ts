/** Child process of the benchmark: makes calls as ordered, and reports. A closed loop: each caller waits for its answer. */
import type { Caller, OnEnd } from './load/caller.ts'
import { GrpcConnection } from './load/grpc-caller.ts'
import { Http1Caller } from './load/http1-caller.ts'
import { isLoadOrder, type LoadOrder, type LoadReport } from './orders.ts'

process.on('disconnect', () => process.exit())
process.on('message', (order) => {
  if (isLoadOrder(order)) void new Measurement(order).run().then((report) => process.send?.(report))
})
process.send?.({ ready: true })

/** With fewer calls a measurement goes on after its time, so that a slow one has figures, too. */
const minCalls = 8

class Measurement {
  readonly #order: LoadOrder
  readonly #latencies: Float64Array
  readonly #firstTokens: Float64Array
  readonly #over = Promise.withResolvers<void>()
  #measureFrom = 0
  #until = 0
  #running = 0
  /** Calls that ended in the measured time, and those of them that began in it, too. */
  #calls = 0
  #timed = 0
  #allCalls = 0
  #lastEnd = 0
  #betweenMs = 0
  #failure: string | null = null

  constructor(order: LoadOrder) {
    this.#order = order
    this.#latencies = new Float64Array(order.maxCalls)
    this.#firstTokens = new Float64Array(order.tokens === undefined ? 0 : order.maxCalls)
  }

  async run(): Promise<LoadReport> {
    const { callers: count, warmupMs, durationMs, tokens, maxCalls } = this.#order
    this.#measureFrom = performance.now() + warmupMs
    this.#until = this.#measureFrom + durationMs
    this.#lastEnd = this.#measureFrom
    this.#running = count
    const cpu = process.cpuUsage()
    const connection = this.#order.wire === 'grpc' ? new GrpcConnection(this.#order) : undefined
    const callers = Array.from({ length: count }, () => this.#start(connection))
    await this.#over.promise
    const { user, system } = process.cpuUsage(cpu)
    for (const caller of callers) caller.close()
    const latencies = this.#latencies.subarray(0, this.#timed).sort()
    const firstTokens = this.#firstTokens.subarray(0, this.#timed).sort()
    return {
      calls: this.#calls,
      allCalls: this.#allCalls,
      elapsedMs: Math.max(this.#timed < maxCalls ? durationMs : 0, this.#lastEnd - this.#measureFrom),
      p50Ms: percentile(latencies, 0.5),
      p99Ms: percentile(latencies, 0.99),
      p999Ms: percentile(latencies, 0.999),
      firstTokenP50Ms: percentile(firstTokens, 0.5),
      firstTokenP99Ms: percentile(firstTokens, 0.99),
      perTokenUs: (1_000 * this.#betweenMs) / (this.#timed * ((tokens ?? 0) - 1)),
      loadCpuUs: user + system,
      failure: this.#failure ?? (this.#timed === 0 ? 'no call ended in the measured time' : null),
    }
  }

  /** One caller, which calls again and again until the time is over. */
  #start(connection: GrpcConnection | undefined): Caller {
    let startMs = performance.now()
    const onEnd: OnEnd = (failure) => {
      const endMs = performance.now()
      if (failure !== undefined) this.#failure ??= failure
      else this.#count(startMs, endMs, caller)
      if (!this.#isOver(endMs)) {
        startMs = endMs
        caller.send()
        return
      }
      this.#running -= 1
      if (this.#running === 0 || this.#failure !== null) this.#over.resolve()
    }
    const caller: Caller = connection?.caller(onEnd) ?? new Http1Caller(this.#order, onEnd)
    caller.send()
    return caller
  }

  #isOver(nowMs: number): boolean {
    if (this.#failure !== null || this.#timed >= this.#order.maxCalls) return true
    return nowMs >= this.#until && this.#timed >= minCalls
  }

  #count(startMs: number, endMs: number, { tokens }: Caller): void {
    const expected = this.#order.tokens
    if (tokens !== undefined && expected !== undefined && !tokens.isWhole(expected)) {
      this.#failure ??= `an answer with ${tokens.count} of ${expected} tokens, or out of order`
      return
    }
    this.#allCalls += 1
    if (endMs < this.#measureFrom || (endMs > this.#until && this.#timed >= minCalls)) return
    if (this.#timed >= this.#order.maxCalls) return
    // One that began before the time counts for the rate: without it a slow target would look slower than it is.
    this.#calls += 1
    this.#lastEnd = endMs
    if (startMs < this.#measureFrom) return
    this.#latencies[this.#timed] = endMs - startMs
    if (tokens !== undefined) {
      this.#firstTokens[this.#timed] = tokens.firstMs - startMs
      this.#betweenMs += tokens.lastMs - tokens.firstMs
    }
    this.#timed += 1
  }
}

function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
