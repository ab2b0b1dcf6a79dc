/** A value's place in a {@link PassingLine}, which alone writes to it. */
export class Place<V> {
  /** Undefined once it has left. */
  value: V | undefined
  before: Place<V> | undefined
  after: Place<V> | undefined = undefined

  constructor(value: V, before: Place<V> | undefined) {
    this.value = value
    this.before = before
  }
}

/**
 * Values that come and go with each call, in the order in which they came, and nobody looks for one by a name. To come and to
 * leave is to set a few references. What has left leads to nothing any more: to the collection of new objects it is garbage
 * (see {@link PassingMap} for why that is not a matter of course).
 */
export class PassingLine<V extends object> {
  #first: Place<V> | undefined
  #last: Place<V> | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The place of the value that came before all others that are there. */
  get first(): Place<V> | undefined {
    return this.#first
  }

  /** As it is now: values may come and go while it is walked through. */
  values(): V[] {
    const values: V[] = []
    for (let place = this.#first; place?.value !== undefined; place = place.after) values.push(place.value)
    return values
  }

  add(value: V): Place<V> {
    const place = new Place(value, this.#last)
    if (this.#last === undefined) this.#first = place
    else this.#last.after = place
    this.#last = place
    this.#size += 1
    return place
  }

  /** False when it has left before. */
  leave(place: Place<V>): boolean {
    if (place.value === undefined) return false
    const { before, after } = place
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    place.value = undefined
    place.before = undefined
    place.after = undefined
    this.#size -= 1
    return true
  }
}
