/** A token of the backend's stream is an event with this, and then its number in three digits. */
const mark = Buffer.from('"delta":{"content":" t')
const digits = 3

/**
 * Reads the tokens of one answer as its bytes arrive, wherever they are cut: when the first and the last came, and
 * whether they are the numbers from 0 on, each once.
 */
export class TokenReader {
  firstMs = 0
  lastMs = 0
  count = 0
  #isInOrder = true
  #tail: Buffer | undefined

  /** Forgets the last answer. */
  reset(): void {
    this.firstMs = 0
    this.lastMs = 0
    this.count = 0
    this.#isInOrder = true
    this.#tail = undefined
  }

  take(chunk: Buffer): void {
    const bytes = this.#tail === undefined ? chunk : Buffer.concat([this.#tail, chunk])
    const before = this.count
    let end = 0
    for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, end)) {
      const from = at + mark.length
      if (from + digits > bytes.length) break
      const number =
        (bytes.readUInt8(from) - 48) * 100 + (bytes.readUInt8(from + 1) - 48) * 10 + bytes.readUInt8(from + 2) - 48
      if (number !== this.count) this.#isInOrder = false
      this.count += 1
      end = from + digits
    }
    if (this.count > before) {
      this.lastMs = performance.now()
      if (before === 0) this.firstMs = this.lastMs
    }
    const kept = Math.max(end, bytes.length - mark.length - digits + 1)
    this.#tail = kept < bytes.length ? bytes.subarray(kept) : undefined
  }

  /** True when the answer had so many tokens, in their order. */
  isWhole(tokens: number): boolean {
    return this.#isInOrder && this.count === tokens
  }
}
