/**
 * Answers that an implementation makes part by part. Parts that are there together leave together: each is put into the
 * outlet, which writes them when nothing more is ready for now, or when they are many. So a token that comes alone leaves
 * at once, and fifty that came in one packet cost one write.
 */
import type { AnswerHeaders } from './answer-headers.ts'
import type { Exchange, Trailers } from './exchange.ts'
import type { Late, ServerCall } from './server-call.ts'

export interface StreamedAnswer {
  readonly status: number
  /** They may change until the first part is put. */
  readonly headers: AnswerHeaders
  readonly hasTrailers: boolean
  /** Puts every part into the outlet, as fast as the caller reads. Resolves with what comes last; never rejects. */
  pump(outlet: Outlet): Promise<Last>
}

/** The end of a stream. */
export interface Last {
  readonly bytes: Uint8Array
  readonly trailers?: Trailers
}

/**
 * An answer of the parts of an iterator. They are pumped until their end, or until the call is over; then they are left.
 * Failures after that go to `late`, and an implementation that does not hear does not hold the answer: the call stays pending
 * until it does.
 */
export abstract class PartsAnswer<T> implements StreamedAnswer {
  readonly status = 200
  abstract readonly hasTrailers: boolean
  readonly headers: AnswerHeaders
  protected readonly call: ServerCall
  readonly #parts: AsyncIterator<T>
  readonly #late: Late

  constructor(parts: AsyncIterator<T>, headers: AnswerHeaders, call: ServerCall, late: Late) {
    this.#parts = parts
    this.headers = headers
    this.call = call
    this.#late = late
  }

  async pump(outlet: Outlet): Promise<Last> {
    try {
      await this.call.race(this.#putAll(outlet), this.#late)
      return this.ended()
    } catch (thrown) {
      leaveParts(this.#parts, this.call, this.#late)
      return this.failed(thrown)
    }
  }

  /** Puts a part into the outlet; what it returns is waited for. A part that says nothing puts nothing. */
  protected abstract put(part: T, outlet: Outlet): Promise<void> | undefined
  /** What comes last when the parts came to their end; throws when that is not how they should end. */
  protected abstract ended(): Last
  protected abstract failed(thrown: unknown): Last

  async #putAll(outlet: Outlet): Promise<void> {
    for (;;) {
      const next = await this.#parts.next()
      if (next.done === true || this.call.ended !== undefined) return
      // As if the part had left by now: its headers are before it.
      this.call.sealHeaders()
      const putting = this.put(next.value, outlet)
      if (putting !== undefined) await putting
      if (outlet.isFull) await outlet.drained()
    }
  }
}

/** Gives up what is left of the parts. Not awaited: the call stays pending until they are gone. */
export function leaveParts(parts: AsyncIterator<unknown>, call: ServerCall, late: Late): void {
  const left = parts.return?.()
  if (left !== undefined) call.race(left, late).catch(() => {})
}

/** Collects the parts of an answer, and writes what came together as one. */
export class Outlet {
  readonly #exchange: Pick<Exchange, 'write' | 'isFull' | 'drained'>
  #parts: Uint8Array[] = []
  #length = 0
  #isScheduled = false
  /** Why a write that nobody waited for failed. */
  #failure: { readonly error: unknown } | undefined

  constructor(exchange: Pick<Exchange, 'write' | 'isFull' | 'drained'>) {
    this.#exchange = exchange
  }

  /** True when the caller reads more slowly than parts come. */
  get isFull(): boolean {
    return this.#exchange.isFull
  }

  /** Resolves when {@link isFull} is worth another look. */
  drained(): Promise<void> {
    return this.#exchange.drained()
  }

  put(bytes: Uint8Array): void {
    this.#add(bytes)
    this.#flushOrWait()
  }

  /** What arrived together leaves together, however much it is. */
  putAll(parts: readonly Uint8Array[]): void {
    for (const bytes of parts) this.#add(bytes)
    this.#flushOrWait()
  }

  /** What was put and not written yet. */
  rest(): Uint8Array {
    if (this.#failure !== undefined) throw this.#failure.error
    const bytes = inOnePiece(this.#parts) ?? Buffer.concat(this.#parts, this.#length)
    this.#parts = []
    this.#length = 0
    return bytes
  }

  #add(bytes: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure.error
    if (bytes.length === 0) return
    this.#parts.push(bytes)
    this.#length += bytes.length
  }

  #flushOrWait(): void {
    if (this.#length >= writeBytes) this.#flush()
    else if (this.#length > 0 && !this.#isScheduled) this.#flushSoon()
  }

  /** When all that is resolved by now, and what follows from it, was put. */
  #flushSoon(): void {
    this.#isScheduled = true
    process.nextTick(flushDue, this)
  }

  /** Writes what was put by now. Whoever puts the next part, or asks for the rest, is told when that fails. */
  flushDue(): void {
    this.#isScheduled = false
    try {
      this.#flush()
    } catch (error) {
      this.#failure = { error }
    }
  }

  #flush(): void {
    if (this.#length > 0) this.#exchange.write(this.rest())
  }
}

/** One function for all, as with the listener of an answer over HTTP/1.1 (http1-exchange.ts). */
function flushDue(outlet: Outlet): void {
  outlet.flushDue()
}

/** More than that is not worth collecting: it is a write of its own. */
const writeBytes = 16_384

/**
 * Parts that stand one behind the other in memory already, as those of one chunk of a backend do, without a copy; undefined
 * for all others.
 */
function inOnePiece(parts: readonly Uint8Array[]): Uint8Array | undefined {
  const [first] = parts
  if (first === undefined || parts.length === 1) return first
  let end = first.byteOffset
  for (const part of parts) {
    if (part.buffer !== first.buffer || part.byteOffset !== end) return undefined
    end += part.length
  }
  return Buffer.from(first.buffer, first.byteOffset, end - first.byteOffset)
}
