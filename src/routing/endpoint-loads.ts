import type { EndpointView } from './choose-endpoint.ts'

/** What this process has seen of the endpoints: how fast they begin to answer, how busy they are, who asked for a rest. */
export interface EndpointLoads {
  of(endpointId: string): Omit<EndpointView, 'isOpen' | 'isSick'>
  /** Counts an attempt as under way; to be matched by one `end`. */
  begin(endpointId: string): void
  end(endpointId: string, sample: LoadSample): void
  /** The endpoint asked not to be called for so many milliseconds. */
  rest(endpointId: string, ms: number): void
}

export interface LoadSample {
  /** Milliseconds to the begin of the answer, or to the failure. */
  readonly ms: number
  /** Whether it says how fast the endpoint is: a failure may be fast, and tells only that it took at least so long. */
  readonly isAnswer: boolean
}

/** Half of a latency's weight is gone after about seven seconds: the decay time of Finagle's peak EWMA. */
const decayMs = 10_000

/** Longest rest that is believed. */
const maxRestMs = 600_000

/** Endpoints that left the registry are remembered until this many are known. */
const maxEndpoints = 10_000

interface Load {
  latencyMs: number | undefined
  sampledAtMs: number
  inFlight: number
  restUntilMs: number
}

/**
 * Latencies are averages that follow a worse sample at once and forget with time ("peak EWMA"): a slow endpoint is avoided
 * immediately and asked again when that faded, although nothing was heard of it meanwhile.
 *
 * @param now milliseconds.
 */
export function createEndpointLoads(now: () => number): EndpointLoads {
  const loads = new Map<string, Load>()

  function loadOf(endpointId: string): Load {
    const known = loads.get(endpointId)
    if (known !== undefined) return known
    for (const [id, { inFlight }] of loads) {
      if (loads.size < maxEndpoints) break
      if (inFlight === 0) loads.delete(id)
    }
    const load: Load = { latencyMs: undefined, sampledAtMs: 0, inFlight: 0, restUntilMs: Number.NEGATIVE_INFINITY }
    loads.set(endpointId, load)
    return load
  }

  /** What is left of an average's weight. */
  function keptShare(load: Load, nowMs: number): number {
    return load.sampledAtMs >= nowMs ? 1 : Math.exp((load.sampledAtMs - nowMs) / decayMs)
  }

  return {
    of(endpointId) {
      const load = loads.get(endpointId)
      if (load === undefined) return unknownLoad
      const { latencyMs, inFlight, restUntilMs } = load
      const nowMs = now()
      return {
        latencyMs: latencyMs === undefined ? undefined : latencyMs * keptShare(load, nowMs),
        inFlight,
        isResting: nowMs < restUntilMs,
      }
    },
    begin(endpointId) {
      loadOf(endpointId).inFlight += 1
    },
    end(endpointId, { ms, isAnswer }) {
      const load = loadOf(endpointId)
      load.inFlight = Math.max(0, load.inFlight - 1)
      const nowMs = now()
      const kept = keptShare(load, nowMs)
      const known = load.latencyMs === undefined ? undefined : load.latencyMs * kept
      if (!isAnswer && (known === undefined || ms <= known)) return
      load.latencyMs = known === undefined || ms > known ? ms : known + ms * (1 - kept)
      load.sampledAtMs = nowMs
    },
    rest(endpointId, ms) {
      const load = loadOf(endpointId)
      load.restUntilMs = Math.max(load.restUntilMs, now() + Math.min(ms, maxRestMs))
    },
  }
}

const unknownLoad = { latencyMs: undefined, inFlight: 0, isResting: false } as const
