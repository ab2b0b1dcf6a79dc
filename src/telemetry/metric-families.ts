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

/** Children by the values of their labels, one after the other: a text made of all would have to be hashed at each look. */
interface Branch<C> {
  readonly next: Map<string, Branch<C>>
  child: C | undefined
}

function branchFor<C>(root: Branch<C>, values: readonly string[]): Branch<C> {
  let branch = root
  for (const value of values) {
    const next = branch.next.get(value) ?? { next: new Map(), child: undefined }
    branch.next.set(value, next)
    branch = next
  }
  return branch
}

function family<C, L extends readonly string[]>(
  options: FamilyOptions<L>,
  create: (labels: Record<string, string>) => C,
): Family<C, L> {
  const { labels, maxLabelSets = 2000 } = options
  const root: Branch<C> = { next: new Map(), child: undefined }
  let count = 0
  const make = (values: readonly string[]) =>
    create(Object.fromEntries(labels.map((name, i) => [name, values[i] ?? ''])))
  let overflow: C | undefined
  return {
    of(...values) {
      let known: Branch<C> | undefined = root
      for (const value of values) known = known?.next.get(value)
      if (known?.child !== undefined) return known.child
      if (count >= maxLabelSets) {
        overflow ??= make(labels.map(() => otherLabel))
        return overflow
      }
      const branch = branchFor(root, values)
      branch.child = make(values)
      count += 1
      return branch.child
    },
  }
}
