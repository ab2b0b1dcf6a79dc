import { Counter, type Registry } from 'prom-client'
import { CountedHistogram, type HistogramChild } from './counted-histogram.ts'

export type { HistogramChild }

/** One counter of a family. */
export interface CounterChild {
  /** Adds `count` (default 1), which must not be negative. */
  inc(count?: number): void
}

/** The children of a metric, one a set of label values, given in the order of its label names. */
export interface Family<C, L extends readonly string[]> {
  of(...values: { readonly [K in keyof L]: string }): C
}

export interface FamilyOptions<L extends readonly string[]> {
  readonly registry: Registry
  readonly name: string
  readonly help: string
  readonly labels: L
  /** Ceiling on label sets; every further set counts under "other" in each label. Default 2000. */
  readonly maxLabelSets?: number
}

/** Text of every label once the ceiling is reached. */
const otherLabel = 'other'

/**
 * A counter whose children cost an addition. prom-client hashes the labels at every `inc` (about 0.5 µs for three
 * labels); here they are hashed once a scrape.
 */
export function counterFamily<const L extends readonly string[]>(options: FamilyOptions<L>): Family<CounterChild, L> {
  const children: { readonly labels: Record<string, string>; pending: number }[] = []
  const counter = new Counter({
    name: options.name,
    help: options.help,
    labelNames: options.labels,
    registers: [options.registry],
    collect() {
      for (const child of children) {
        counter.inc(child.labels, child.pending)
        child.pending = 0
      }
    },
  })
  return family(options, (labels) => {
    const child = { labels, pending: 0 }
    children.push(child)
    return {
      inc(count = 1) {
        child.pending += count
      },
    }
  })
}

/** A histogram whose children cost two additions and a search: prom-client hashes the labels at every `observe`. */
export function histogramFamily<const L extends readonly string[]>(
  options: FamilyOptions<L> & { readonly buckets: readonly number[] },
): Family<HistogramChild, L> {
  const histogram = new CountedHistogram(options)
  return family(options, (labels) => histogram.child(labels))
}

function family<C, L extends readonly string[]>(
  options: FamilyOptions<L>,
  create: (labels: Record<string, string>) => C,
): Family<C, L> {
  const { labels, maxLabelSets = 2000 } = options
  const children = new Map<string, C>()
  const make = (values: readonly string[]) =>
    create(Object.fromEntries(labels.map((name, i) => [name, values[i] ?? ''])))
  let overflow: C | undefined
  return {
    of(...values) {
      const key = values.join('\n')
      let child = children.get(key)
      if (child !== undefined) return child
      if (children.size >= maxLabelSets) {
        overflow ??= make(labels.map(() => otherLabel))
        return overflow
      }
      child = make(values)
      children.set(key, child)
      return child
    },
  }
}
