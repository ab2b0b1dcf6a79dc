import { Histogram, type MetricValueWithName, type Registry } from 'prom-client'

/** One histogram of a family. */
export interface HistogramChild {
  observe(value: number): void
}

export interface CountedHistogramOptions {
  readonly registry: Registry
  readonly name: string
  readonly help: string
  readonly labels: readonly string[]
  /** Upper bounds, in rising order. */
  readonly buckets: readonly number[]
}

/** The JSON form is made of both kinds of labels; here all are of the first. */
interface SharedValue extends MetricValueWithName<string> {
  readonly sharedLabels: object
}

const sharedLabels = {}

/** What was observed under one set of labels. */
class Child implements HistogramChild {
  readonly labels: Readonly<Record<string, string>>
  readonly #bounds: readonly number[]
  /** For each bound, and last for what is above all of them; not cumulative. */
  readonly counts: number[]
  sum = 0

  constructor(labels: Readonly<Record<string, string>>, bounds: readonly number[]) {
    this.labels = labels
    this.#bounds = bounds
    this.counts = [...bounds, Number.POSITIVE_INFINITY].map(() => 0)
  }

  observe(value: number): void {
    let at = 0
    while (at < this.#bounds.length && value > (this.#bounds[at] ?? 0)) at++
    this.counts[at] = (this.counts[at] ?? 0) + 1
    this.sum += value
  }
}

/** A histogram of prom-client's registry that is counted here, and made into its form when it is asked for. */
export class CountedHistogram extends Histogram {
  readonly #options: CountedHistogramOptions
  readonly #children: Child[] = []

  constructor(options: CountedHistogramOptions) {
    const { registry, name, help, labels, buckets } = options
    super({ name, help, labelNames: [...labels], buckets: [...buckets], registers: [registry] })
    this.#options = options
  }

  /** Begins at zero. */
  child(labels: Readonly<Record<string, string>>): HistogramChild {
    const child = new Child(labels, this.#options.buckets)
    this.#children.push(child)
    return child
  }

  /** What the registry makes its text and its JSON from. */
  getForPromString() {
    const { name, help } = this.#options
    const values = this.#children.flatMap((child) => this.#valuesOf(child))
    return { name, help, type: 'histogram', aggregator: 'sum', values }
  }

  #valuesOf({ labels, counts, sum }: Child): SharedValue[] {
    const { name, buckets } = this.#options
    let count = 0
    const values: SharedValue[] = counts.map((each, index) => {
      count += each
      const bounded = { le: buckets[index] ?? '+Inf', ...labels }
      return { metricName: `${name}_bucket`, labels: bounded, sharedLabels, value: count }
    })
    values.push(
      { metricName: `${name}_sum`, labels, sharedLabels, value: sum },
      { metricName: `${name}_count`, labels, sharedLabels, value: count },
    )
    return values
  }
}
