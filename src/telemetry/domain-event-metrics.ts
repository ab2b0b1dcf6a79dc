import { Gauge, type Registry } from 'prom-client'
import { answerOf } from './answer-of.ts'

/** How far a place that domain events go to is. */
export interface DomainEventsSample {
  readonly name: string
  /** Events that were not attempted yet. */
  readonly behind: number
  /** Events that wait for another attempt, or behind one that does. */
  readonly waiting: number
  readonly deadLetters: number
  /** Age of the oldest event that is still to be delivered; 0 when there is none. */
  readonly lagSeconds: number
}

/** Registers the gauges of domain events, one sample a sink. */
export function registerDomainEvents(
  registry: Registry,
  source: () => Promise<readonly DomainEventsSample[]> | undefined,
): void {
  // One question for all gauges of a scrape, which asks them one after the other at once.
  let asked: Promise<readonly DomainEventsSample[] | undefined> | undefined
  const ask = (): Promise<readonly DomainEventsSample[] | undefined> => {
    asked ??= answerOf(source).finally(() => {
      asked = undefined
    })
    return asked
  }

  function perSink(name: string, help: string, value: (sample: DomainEventsSample) => number): void {
    const gauge = new Gauge({
      name,
      help,
      labelNames: ['sink'],
      registers: [registry],
      async collect() {
        const samples = await ask()
        gauge.reset()
        for (const sample of samples ?? []) gauge.set({ sink: sample.name }, value(sample))
      },
    })
  }

  perSink('tollgate_domain_events_behind', 'Domain events that were not attempted yet', ({ behind }) => behind)
  perSink('tollgate_domain_events_waiting', 'Domain events that wait for another attempt', ({ waiting }) => waiting)
  perSink('tollgate_domain_events_dead_letters', 'Domain events that are not attempted any more', (sample) => {
    return sample.deadLetters
  })
  perSink('tollgate_domain_events_lag_seconds', 'Age of the oldest domain event to be delivered', (sample) => {
    return sample.lagSeconds
  })
}
