import type { DomainEvent } from './domain-event.ts'
import type { Delivery } from './outbox-sink.ts'

/**
 * Delivers events one by one, `concurrency` of them at once, but of one subject one after the other, and none after one that
 * was not delivered. After the signal no other is begun.
 */
export async function deliverInLanes(
  events: readonly DomainEvent[],
  concurrency: number,
  signal: AbortSignal,
  deliver: (event: DomainEvent) => Promise<Delivery>,
): Promise<readonly Delivery[]> {
  const deliveries = new Map<DomainEvent, Delivery>()
  const lanes = [...Map.groupBy(events, ({ subject }) => subject).values()]
  const work = async (): Promise<void> => {
    for (let lane = lanes.shift(); lane !== undefined && !signal.aborted; lane = lanes.shift()) {
      for (const event of lane) {
        const delivery = await deliver(event)
        deliveries.set(event, delivery)
        if (delivery !== 'delivered') break
      }
    }
  }
  await Promise.all(Array.from({ length: concurrency }, work))
  return events.map((event) => deliveries.get(event) ?? 'held_back')
}
