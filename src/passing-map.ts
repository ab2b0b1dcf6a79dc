/**
 * A Map for values that come and go with each call. It holds them in cells, which are emptied when their entry is deleted.
 *
 * A Map or Set that entries come to and go from is copied into a new table again and again, and V8 links each old table,
 * with all that was in it, to the next. Once one of them is in the old generation of the heap, nothing that was ever an entry
 * is garbage to the collection of new objects, until a collection of the whole heap: each call with all that it
 * refers to is copied twice, and promoted. Of a gate under load that was 7 KB a call and half of its pauses (docs/performance.md).
 * Here an old table leads to keys and empty cells. So keys are to be strings or numbers.
 */
export class PassingMap<K extends string | number, V extends object> {
  readonly #cells = new Map<K, { value: V | undefined }>()

  get size(): number {
    return this.#cells.size
  }

  has(key: K): boolean {
    return this.#cells.has(key)
  }

  get(key: K): V | undefined {
    return this.#cells.get(key)?.value
  }

  /** A key that is new comes last. */
  set(key: K, value: V): void {
    const cell = this.#cells.get(key)
    if (cell === undefined) this.#cells.set(key, { value })
    else cell.value = value
  }

  /** False when there is no such entry. */
  delete(key: K): boolean {
    const cell = this.#cells.get(key)
    if (cell === undefined) return false
    cell.value = undefined
    return this.#cells.delete(key)
  }

  /** In the order in which their keys came; as with a Map, entries may be deleted meanwhile. */
  *[Symbol.iterator](): Generator<[K, V], undefined> {
    for (const [key, { value }] of this.#cells) if (value !== undefined) yield [key, value]
  }

  *values(): Generator<V, undefined> {
    for (const { value } of this.#cells.values()) if (value !== undefined) yield value
  }
}
