/**
 * A map that forgets: it holds at most `ceiling` entries, and keeps those that were used last, approximately. Two
 * generations instead of a linked list: a hit in the young one costs a single Map get, and ageing is one assignment.
 * At least the `ceiling / 2` entries used last are always there.
 */
export class BoundedMap<K, V> {
  readonly #half: number
  #young = new Map<K, V>()
  #old = new Map<K, V>()

  constructor(ceiling: number) {
    if (!Number.isInteger(ceiling) || ceiling < 2) throw new RangeError(`ceiling must be an integer of at least 2`)
    this.#half = Math.floor(ceiling / 2)
  }

  get(key: K): V | undefined {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.set(key, old)
    return old
  }

  set(key: K, value: V): void {
    if (this.#young.size >= this.#half && !this.#young.has(key)) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, value)
    this.#old.delete(key)
  }

  delete(key: K): void {
    this.#young.delete(key)
    this.#old.delete(key)
  }

  clear(): void {
    this.#young = new Map()
    this.#old = new Map()
  }

  /** Never above the ceiling. */
  get size(): number {
    return this.#young.size + this.#old.size
  }
}
