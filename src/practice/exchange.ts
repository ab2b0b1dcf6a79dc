import type { IncomingMessage, ServerResponse } from 'node:http'

/** What a body reader hands over: the text, or `undefined` when the body was larger than {@link maxBodyBytes}. */
export type BodyHandler = (body: string | undefined) => void

/** Largest request body, in bytes. */
const maxBodyBytes = 16 * 1024 * 1024

/** A larger body is read to its end and refused, so that the caller sees why; beyond this the connection is cut. */
const maxDrainedBytes = 4 * maxBodyBytes

/** One request and its answer on the wire, with the one thing that faults need to know: whether the caller is there. */
export class Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** True once the connection or the answer is over, whoever ended it. */
  over = false
  /** Tokens of text written so far; a streamed answer counts them up. */
  deliveredTokens = 0
  #destroyed = false
  #wake: (() => void) | undefined

  /** `onOver` runs once at the end; `aborted` is true when the caller left before the answer was complete. */
  constructor(request: IncomingMessage, response: ServerResponse, onOver: (aborted: boolean) => void) {
    this.request = request
    this.response = response
    response.on('close', () => {
      this.over = true
      this.#wake?.()
      onOver(!this.#destroyed && !response.writableFinished)
    })
    // The 'close' of the response says all there is to say of a caller that left.
    request.on('error', () => {})
    response.on('error', () => {})
  }

  /** Reads the whole body, bounded. The handler is not called when the caller leaves before the end. */
  readBody(handler: BodyHandler): void {
    const chunks: Buffer[] = []
    let bytes = 0
    this.request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= maxBodyBytes) chunks.push(chunk)
      else if (bytes > maxDrainedBytes) this.destroy()
      else chunks.length = 0
    })
    this.request.on('end', () => {
      if (bytes > maxBodyBytes) handler(undefined)
      else handler((chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))?.toString('utf8') ?? '')
    })
  }

  /** Answers with a whole body. */
  send(status: number, type: string, body: string, headers: Record<string, string> = {}): void {
    if (this.over) return
    this.response.writeHead(status, {
      'content-type': type,
      'content-length': Buffer.byteLength(body),
      ...headers,
    })
    this.response.end(body)
  }

  /** Writes a piece and waits until the connection takes more; false when the caller has left. */
  async write(piece: string): Promise<boolean> {
    if (this.over) return false
    if (!this.response.write(piece)) {
      await this.#sleep((wake) => {
        this.response.once('drain', wake)
        return () => this.response.off('drain', wake)
      })
    }
    return !this.over
  }

  /** Waits; false when the caller left meanwhile. */
  async wait(ms: number): Promise<boolean> {
    if (ms > 0 && !this.over) {
      await this.#sleep((wake) => {
        const timer = setTimeout(wake, ms)
        return () => clearTimeout(timer)
      })
    }
    return !this.over
  }

  /** Ends the connection without an answer, or in the middle of one; what was written before still arrives. */
  destroy(): void {
    this.#destroyed = true
    this.request.socket.destroySoon()
  }

  /** Resets the connection. */
  reset(): void {
    this.#destroyed = true
    this.request.socket.resetAndDestroy()
  }

  async #sleep(start: (wake: () => void) => () => void): Promise<void> {
    await new Promise<void>((resolve) => {
      const stop = start(() => this.#wake?.())
      this.#wake = () => {
        this.#wake = undefined
        stop()
        resolve()
      }
    })
  }
}
