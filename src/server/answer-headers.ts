/**
 * Headers of an answer, names in lower case, as a flat list: names and values in turn. That is what Node's HTTP/1.1 server
 * takes as it is; a Map whose entries go through `setHeader` one by one costs twice as much, an object with ever other keys
 * more. An answer has a dozen of them, so that looking through the list is nothing.
 */
export class AnswerHeaders {
  readonly list: string[]

  constructor(list: string[] = []) {
    this.list = list
  }

  set(name: string, value: string): void {
    const at = this.#indexOf(name)
    if (at < 0) this.list.push(name, value)
    else this.list[at + 1] = value
  }

  get(name: string): string | undefined {
    const at = this.#indexOf(name)
    return at < 0 ? undefined : this.list[at + 1]
  }

  /** Gives a header, if it is there, another name; one that had it is gone. */
  rename(name: string, other: string): void {
    const at = this.#indexOf(name)
    if (at < 0) return
    if (this.#indexOf(other) < 0) {
      this.list[at] = other
    } else {
      this.set(other, this.list[at + 1] ?? '')
      this.delete(name)
    }
  }

  delete(name: string): void {
    const at = this.#indexOf(name)
    if (at >= 0) this.list.splice(at, 2)
  }

  forEach(visit: (value: string, name: string) => void): void {
    for (let at = 0; at < this.list.length; at += 2) visit(this.list[at + 1] ?? '', this.list[at] ?? '')
  }

  #indexOf(name: string): number {
    for (let at = 0; at < this.list.length; at += 2) if (this.list[at] === name) return at
    return -1
  }
}
