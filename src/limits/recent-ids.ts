/**
 * Remembers ids for at least `keepMs` after they were added, but no more than the last `most`, and not much longer.
 *
 * To add an id is what each call does, and to look for one is rare. So they are only put down one behind the other, in lists, and
 * an index is made of a list when somebody asks for an id that may be in it: in a set of a hundred thousand each new one takes
 * over a microsecond, most of it to wait for memory. Ids that grow with time are the cheap ones: one that is above or below all of
 * a list is not looked for there.
 */
export class RecentIds {
  readonly #clock: () => number
  readonly #keepMs: number
  readonly #mostLists: number
  /** Oldest first. Never empty. */
  readonly #lists: IdList[]
  #greatest = ''

  constructor(clock: () => number, keepMs: number, most: number) {
    this.#clock = clock
    this.#keepMs = keepMs
    this.#mostLists = Math.ceil(most / listIds) + 1
    this.#lists = [new IdList(clock())]
  }

  has(id: string): boolean {
    return id <= this.#greatest && this.#lists.some((list) => list.has(id))
  }

  add(id: string): void {
    if (id > this.#greatest) this.#greatest = id
    const now = this.#clock()
    const last = this.#lists.at(-1)
    if (last !== undefined && last.size < listIds && now - last.begunAt < this.#keepMs) {
      last.add(id)
      return
    }
    const next = new IdList(now)
    next.add(id)
    this.#lists.push(next)
    while (this.#lists.length > this.#mostLists || this.#isOver(this.#lists[1], now)) this.#lists.shift()
  }

  /** Whether all that came before this list came long enough ago. */
  #isOver(following: IdList | undefined, now: number): boolean {
    return following !== undefined && now - following.begunAt >= this.#keepMs
  }
}

/** To index so many takes a millisecond. */
const listIds = 4_096

class IdList {
  readonly begunAt: number
  readonly #ids: string[] = []
  #least = ''
  #greatest = ''
  /** Of the first ones. */
  readonly #index = new Set<string>()
  #indexed = 0

  constructor(begunAt: number) {
    this.begunAt = begunAt
  }

  get size(): number {
    return this.#ids.length
  }

  add(id: string): void {
    if (this.#ids.length === 0 || id < this.#least) this.#least = id
    if (id > this.#greatest) this.#greatest = id
    this.#ids.push(id)
  }

  has(id: string): boolean {
    if (id < this.#least || id > this.#greatest) return false
    for (; this.#indexed < this.#ids.length; this.#indexed++) this.#index.add(this.#ids[this.#indexed] ?? '')
    return this.#index.has(id)
  }
}
