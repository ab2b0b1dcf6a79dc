/** What a gate says of itself at `/metrics`, of the samples without labels. */
export type Metrics = ReadonlyMap<string, number>

/** Reads them. Each read begins a new period of the event loop's figures. */
export async function readMetrics(origin: string): Promise<Metrics> {
  const answer = await fetch(`${origin}/metrics`, { signal: AbortSignal.timeout(10_000) })
  const samples = new Map<string, number>()
  for (const line of (await answer.text()).split('\n')) {
    const [, name, value] = /^([a-z0-9_]+) (\S+)/.exec(line) ?? []
    if (name !== undefined) samples.set(name, Number(value))
  }
  return samples
}

/** Reads the metrics of a gate every few seconds, as Prometheus does. Returns what ends it. */
export function scrape(origin: string, everyMs = 5_000): () => void {
  // A gate that is ending does not answer any more.
  const timer = setInterval(() => void readMetrics(origin).catch(() => {}), everyMs)
  timer.unref()
  return () => clearInterval(timer)
}
