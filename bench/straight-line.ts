/**
 * Child process of the benchmark: what a governed call costs at least in Node. The bare proxy, and as plain code of one file
 * what a gate cannot do without, one step more at a time: `node straight-line.ts URL STEP FILE`.
 *
 * - `parse`: both bodies as JSON, for model and usage
 * - `key`: and the digest of a key, compared with a known one
 * - `record`: and six counters taken and settled; a record before the backend is asked, and one that is on the disk before
 *   the answer leaves; one write for all of a turn, and one sync for all that end meanwhile
 *
 * No protocol beside OpenAI's, no policy, no retries, no deadline, no metric, no log, no ledger: it is no gateway.
 */
import { hash, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type Dispatcher, Pool } from 'undici'
import { newId } from '../src/ids.ts'
import { openSegmentFile } from '../src/limits/segment-file.ts'
import { frame } from '../src/limits/segment-frames.ts'
import { turnsEnd } from '../src/turn.ts'

const [, , target = '', step = '', path = ''] = process.argv
const steps = ['parse', 'key', 'record'] as const
const checksKey = step !== 'parse'
const records = step === 'record'
if (!steps.some((known) => known === step)) throw new Error(`the step must be one of ${steps.join(', ')}`)

const pool = new Pool(target, { connections: 1_000 })
const pepper = 'a pepper as long as a real one is'
const known = hash('sha256', `${pepper}known`, 'buffer')
const counters = new Map(Array.from({ length: 6 }, (_, index) => [`a counter of a limit, number ${index}`, 0]))
const file = await openSegmentFile(path, 'w')
let position = 0
let gathered: { readonly bytes: Uint8Array; readonly written: () => void }[] = []
let waiting: (() => void)[] = []
let isSyncing = false

function append(fields: readonly unknown[], written: () => void): void {
  if (gathered.push({ bytes: frame({ text: JSON.stringify(fields) }), written }) === 1) setImmediate(writeAll)
}

function writeAll(): void {
  const records = gathered
  gathered = []
  const bytes = Buffer.concat(records.map((record) => record.bytes))
  position += file.write(bytes, 0, bytes.length, position)
  for (const { written } of records) written()
  if (!isSyncing) void sync()
}

/** One sync for all that wait when it begins, at the end of a turn as in the gate's log. */
async function sync(): Promise<void> {
  isSyncing = true
  while (waiting.length > 0) {
    await turnsEnd()
    const served = waiting
    waiting = []
    await file.datasync()
    for (const leave of served) leave()
  }
  isSyncing = false
}

function take(units: number): void {
  for (const [name, used] of counters) counters.set(name, used + units)
}

function fieldsOf(id: string, model: unknown, usage: unknown): unknown[] {
  const texts = Array.from({ length: 12 }, () => 'a field of a usage record')
  return [id, id, model, usage, Date.now(), ...texts]
}

class Relay implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse
  readonly #id = newId()
  readonly #model: unknown
  readonly #chunks: Buffer[] = []

  constructor(response: ServerResponse, model: unknown) {
    this.#response = response
    this.#model = model
  }

  /** Asks the backend once the call is on record. */
  begin(ask: () => void): void {
    if (!records) return void ask()
    take(100)
    append(fieldsOf(this.#id, this.#model, undefined), ask)
  }

  onRequestStart(): void {}

  onResponseStart(): void {}

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk)
  }

  onResponseEnd(): void {
    const body = Buffer.concat(this.#chunks)
    const { usage } = JSON.parse(body.toString())
    const leave = (): void => {
      this.#response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length })
      this.#response.end(body)
    }
    if (!records) return void leave()
    take(-50)
    append(fieldsOf(this.#id, this.#model, usage), () => waiting.push(leave))
  }

  onResponseError(): void {
    this.#response.destroy()
  }
}

function isKnown({ headers }: IncomingMessage): boolean {
  const digest = hash('sha256', pepper + (headers.authorization ?? 'known'), 'buffer')
  return timingSafeEqual(digest, known)
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    const body = Buffer.concat(chunks)
    const { model } = JSON.parse(body.toString())
    if (checksKey && !isKnown(request)) return void response.destroy()
    const relay = new Relay(response, model)
    relay.begin(() =>
      pool.dispatch(
        { path: request.url ?? '/', method: 'POST', headers: ['content-type', 'application/json'], body },
        relay,
      ),
    )
  })
})

process.on('disconnect', () => process.exit())
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address !== 'string') process.send?.({ url: `http://127.0.0.1:${address.port}` })
})
