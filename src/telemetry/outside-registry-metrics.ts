import { Gauge, type Registry } from 'prom-client'
import { answerOf } from './answer-of.ts'

/** How an outside registry is followed. */
export interface OutsideRegistrySample {
  /** Of the last look that succeeded; undefined before the first. */
  readonly last:
    | {
        /** Unix milliseconds. */
        readonly atMs: number
        readonly followed: number
        readonly heldBack: number
        readonly passedOver: { readonly size: number }
      }
    | undefined
  readonly failing: string | undefined
}

/** Registers the gauges of the outside registry; a replica that does not look at it has none of them. */
export function registerOutsideRegistry(
  registry: Registry,
  now: () => number,
  source: () => OutsideRegistrySample | undefined,
): void {
  function sampled(name: string, help: string, value: (sample: OutsideRegistrySample) => number | undefined): void {
    const gauge = new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const sample = await answerOf(source)
        const found = sample && value(sample)
        gauge.remove()
        if (found !== undefined) gauge.set(found)
      },
    })
  }

  sampled('tollgate_registry_available', '1 while the outside registry can be read, else 0', ({ failing }) => {
    return Number(failing === undefined)
  })
  sampled('tollgate_registry_age_seconds', 'Seconds since the outside registry was last read', ({ last }) => {
    return last && Math.max(0, now() - last.atMs) / 1000
  })
  sampled('tollgate_registry_services', 'Services taken over from the outside registry that live', ({ last }) => {
    return last?.followed
  })
  sampled('tollgate_registry_held_back', 'Services that the list lacks and that are left as they are', ({ last }) => {
    return last?.heldBack
  })
  sampled('tollgate_registry_passed_over', 'Services that could not be taken over or told', ({ last }) => {
    return last?.passedOver.size
  })
}
