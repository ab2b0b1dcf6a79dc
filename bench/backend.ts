/**
 * Child process of the benchmark: an OpenAI-compatible backend that answers at once, with answers made beforehand, on bare
 * sockets: it shares a core with the load generator, and node:http would take half of it. Tells its URL, answers a
 * message with `{ served }`. What it answers stands in the address, so that each service of a gate has its own:
 *
 * - `/v1/chat/completions?bytes=16384`: a chat completion of so many bytes, with usage; 1,024 without it.
 * - `/v1/chat/completions?tokens=50&paceMs=10`: a stream of so many tokens, so far apart; all of them in one write without
 *   a pace.
 */
import { createServer, type Socket } from 'node:net'
import { streamEvents, unaryAnswer } from './backend-answers.ts'

interface Answer {
  /** What is written at once. */
  readonly first: Buffer
  /** What follows it, `paceMs` apart. */
  readonly rest: readonly Buffer[]
  readonly paceMs: number
}

const headEnd = Buffer.from('\r\n\r\n')
const lengthField = Buffer.from('content-length: ')
const answers = new Map<string, Answer>()
let served = 0

function answerOf(target: string): Answer {
  const known = answers.get(target)
  if (known !== undefined) return known
  const query = new URL(target, 'http://backend').searchParams
  const [tokens, paceMs] = [Number(query.get('tokens')), Number(query.get('paceMs'))]
  const made = tokens > 0 ? streamOf(tokens, paceMs) : unaryOf(Number(query.get('bytes') ?? 1_024))
  answers.set(target, made)
  return made
}

function unaryOf(bytes: number): Answer {
  const body = unaryAnswer(bytes)
  const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`
  return { first: Buffer.concat([Buffer.from(head), body]), rest: [], paceMs: 0 }
}

function streamOf(tokens: number, paceMs: number): Answer {
  const head = Buffer.from('HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n')
  // Each event is a chunk of its own, as a provider writes it, also where all are written at once.
  const { opening, words, closing } = streamEvents(tokens)
  const parts = [...words.map(chunked), Buffer.concat([...closing.map(chunked), Buffer.from('0\r\n\r\n')])]
  const opened = Buffer.concat([head, ...opening.map(chunked)])
  if (paceMs === 0) return { first: Buffer.concat([opened, ...parts]), rest: [], paceMs }
  const [word = Buffer.alloc(0), ...rest] = parts
  return { first: Buffer.concat([opened, word]), rest, paceMs }
}

function chunked(event: string): Buffer {
  return Buffer.from(`${Buffer.byteLength(event).toString(16)}\r\n${event}\r\n`)
}

function send(socket: Socket, { first, rest, paceMs }: Answer): void {
  served += 1
  socket.write(first)
  if (rest.length === 0) return
  let next = 0
  const timer = setInterval(() => {
    const part = rest[next]
    next += 1
    if (part === undefined || socket.destroyed) clearInterval(timer)
    else socket.write(part)
  }, paceMs)
}

/** Reads requests one after the other; of a body only the length matters. */
function serve(socket: Socket): void {
  let held: Buffer | undefined
  let bodyLeft = 0
  let answer: Answer | undefined
  socket.setNoDelay(true)
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: Buffer) => {
    let bytes = held === undefined ? chunk : Buffer.concat([held, chunk])
    held = undefined
    while (bytes.length > 0) {
      if (answer === undefined) {
        const end = bytes.indexOf(headEnd)
        if (end < 0) {
          held = bytes
          return
        }
        const space = bytes.indexOf(0x20)
        answer = answerOf(bytes.toString('latin1', space + 1, bytes.indexOf(0x20, space + 1)))
        bodyLeft = bodyLength(bytes, end)
        bytes = bytes.subarray(end + headEnd.length)
      }
      const taken = Math.min(bodyLeft, bytes.length)
      bodyLeft -= taken
      bytes = bytes.subarray(taken)
      if (bodyLeft > 0) return
      send(socket, answer)
      answer = undefined
    }
  })
}

function bodyLength(bytes: Buffer, headLength: number): number {
  const at = bytes.indexOf(lengthField)
  if (at >= 0 && at < headLength)
    return Number.parseInt(bytes.toString('latin1', at + lengthField.length, headLength), 10)
  const head = bytes.toString('latin1', 0, headLength).toLowerCase()
  if (head.includes('\r\ntransfer-encoding:')) throw new Error('this backend reads no chunked requests')
  const field = /\r\ncontent-length: *(\d+)/.exec(head)
  return Number(field?.[1] ?? 0)
}

process.on('disconnect', () => process.exit())
process.on('message', () => process.send?.({ served }))
const server = createServer(serve)
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address !== 'string') process.send?.({ url: `http://127.0.0.1:${address.port}` })
})
