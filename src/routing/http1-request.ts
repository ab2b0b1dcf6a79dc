/** What a request over HTTP/1.1 is on the wire. */
import type { Socket } from 'node:net'
import { errors } from 'undici'
import type { TransportRequest } from './transport.ts'

/** Longer bodies are not copied behind their head. */
const maxCopiedBytes = 65_536

/** Paths are few; one that names a model is one of many. */
const maxOpenings = 1_000

/** Of these the connection takes care. */
const ownNames = new Set([
  'host',
  'connection',
  'keep-alive',
  'upgrade',
  'expect',
  'content-length',
  'transfer-encoding',
])

const path = /^\/[\x21-\x7e]*$/
const name = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/i
/** RFC 9110 §5.5, but for obs-fold: whoever writes a value cannot begin another line with it. */
const value = /^[\t\x20-\x7e\x80-\xff]*$/

/** Writes requests to one origin. */
export class RequestWriter {
  readonly #host: string
  /** By path: the lines that are alike in all its requests. */
  readonly #openings = new Map<string, string>()

  /** @param host of the origin, with its port where that is not the scheme's own. */
  constructor(host: string) {
    this.#host = host
  }

  /** The head, without the line for the body's length. Throws for what cannot be sent. */
  head(request: TransportRequest): string {
    const { headers } = request
    let head = this.#openings.get(request.path) ?? this.#open(request)
    for (const key in headers) {
      const text = headers[key] ?? ''
      if (!name.test(key) || ownNames.has(key.toLowerCase()))
        throw new errors.InvalidArgumentError(`a request cannot have the header ${key}`)
      if (!value.test(text))
        throw new errors.InvalidArgumentError(`the value of the header ${key} has characters that it cannot have`)
      head += `${key}: ${text}\r\n`
    }
    return head
  }

  #open({ method, path: target }: TransportRequest): string {
    if (!path.test(target))
      throw new errors.InvalidArgumentError('the path of a request has characters that it cannot have')
    if (this.#openings.size >= maxOpenings) this.#openings.clear()
    const opening = `${method} ${target} HTTP/1.1\r\nhost: ${this.#host}\r\nconnection: keep-alive\r\n`
    this.#openings.set(target, opening)
    return opening
  }
}

/** Writes a request, in one piece where its body is not long. */
export function writeRequest(socket: Socket, head: string, body: Uint8Array): void {
  const whole = `${head}content-length: ${body.length}\r\n\r\n`
  if (body.length <= maxCopiedBytes) {
    const bytes = Buffer.allocUnsafe(whole.length + body.length)
    bytes.write(whole, 'latin1')
    bytes.set(body, whole.length)
    socket.write(bytes)
    return
  }
  socket.cork()
  socket.write(whole, 'latin1')
  socket.write(body)
  socket.uncork()
}
