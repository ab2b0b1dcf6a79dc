/**
 * Remembers ids for at least `keepMs` after they were added, and not much longer. Two lists take turns, which is cheaper
 * than a time for each id; a list that reaches `most` ids ends its turn early.
 *
 * To add an id is what each call does, and to look for one is rare. So they are only put down one behind the other, and an
 * index is made of them when somebody asks: in a set of a hundred thousand each new one takes over a microsecond, most of it to
 * wait for memory. Ids that grow with time are the cheap ones: one that is above all that were added is not looked for.
 */
export class RecentIds {
  readonly #clock: () => number
  readonly #keepMs: number
  readonly #most: number
  #young = new IndexedIds()
  #old = new IndexedIds()
  #turnedAt: number
  #greatest = ''

  constructor(clock: () => number, keepMs: number, most: number) {
    this.#clock = clock
    this.#keepMs = keepMs
    this.#most = most
    this.#turnedAt = clock()
  }

  has(id: string): boolean {
    return id <= this.#greatest && (this.#young.has(id) || this.#old.has(id))
  }

  add(id: string): void {
    const now = this.#clock()
    if (now - this.#turnedAt >= this.#keepMs || this.#young.size >= this.#most) {
      this.#old = this.#young
      this.#young = new IndexedIds()
      this.#turnedAt = now
    }
    this.#young.add(id)
    if (id > this.#greatest) this.#greatest = id
  }
}

class IndexedIds {
  readonly #ids: string[] = []
  /** Of the first ones. */
  readonly #index = new Set<string>()
  #indexed = 0

  get size(): number {
    return this.#ids.length
  }

  add(id: string): void {
    this.#ids.push(id)
  }

  has(id: string): boolean {
    for (; this.#indexed < this.#ids.length; this.#indexed++) this.#index.add(this.#ids[this.#indexed] ?? '')
    return this.#index.has(id)
  }
}
