/** Child process of bench/keys.ts: sends requests that are refused, at a steady rate, from as many addresses as ordered. */
import { createHash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { generateKey } from '../src/identity/key-format.ts'

/** What is sent. */
export interface FloodOrder {
  /** Scheme, host and port. */
  readonly origin: string
  readonly total: number
  readonly perSecond: number
  /** Addresses of 127.1.0.0/16 that send in turn, each over a connection of its own. */
  readonly addresses: number
  /** What a key's id follows from, for wrong secrets of a key that exists; undefined: no credential at all. */
  readonly idSeed: string | undefined
}

/** Asks for the order's requests to be made, which takes a core for seconds; `begin` sends them. */
export type FloodMessage = { readonly prepare: FloodOrder } | { readonly begin: true }

/** What came of it: answers by status, and how long it took. */
export interface FloodReport {
  readonly statuses: Readonly<Record<string, number>>
  readonly elapsedMs: number
}

process.on('disconnect', () => process.exit())
let prepared: { order: FloodOrder; requests: readonly string[] } | undefined
process.on('message', (message: FloodMessage) => {
  if ('prepare' in message) {
    prepared = { order: message.prepare, requests: requestsOf(message.prepare) }
    process.send?.({ ready: true })
  } else if (prepared !== undefined) {
    void flood(prepared.order, prepared.requests).then((report) => process.send?.(report))
  }
})
process.send?.({ ready: true })

function requestsOf({ origin, total, idSeed }: FloodOrder): string[] {
  const { host } = new URL(origin)
  return Array.from({ length: total }, (_, index) => requestOf(host, idSeed, index))
}

async function flood(order: FloodOrder, requests: readonly string[]): Promise<FloodReport> {
  const { total, perSecond, addresses } = order
  const { hostname, port } = new URL(order.origin)
  const statuses: Record<string, number> = {}
  let answered = 0
  const sockets: Socket[] = []
  for (let index = 0; index < addresses; index++) {
    const localAddress = `127.1.${index >> 8}.${index & 255}`
    const socket = connect({ host: hostname, port: Number(port), localAddress, noDelay: true })
    // Keep-alive answers without a body to wait for: each begins with its status line.
    socket.setEncoding('latin1').on('data', (text: string) => {
      for (const [, status = ''] of text.matchAll(/HTTP\/1\.1 (\d{3})/g)) {
        statuses[status] = (statuses[status] ?? 0) + 1
        answered++
      }
    })
    socket.on('error', (error) => {
      statuses[error.message] = (statuses[error.message] ?? 0) + 1
      answered++
    })
    sockets.push(socket)
  }
  await delay(500)
  const startMs = performance.now()
  for (let sent = 0; sent < total; ) {
    const due = Math.min(total, Math.ceil(((performance.now() - startMs) * perSecond) / 1_000))
    for (; sent < due; sent++) sockets[sent % addresses]?.write(requests[sent] ?? '')
    await delay(2)
  }
  const giveUpMs = performance.now() + 30_000
  while (answered < total && performance.now() < giveUpMs) await delay(10)
  const elapsedMs = performance.now() - startMs
  for (const socket of sockets) socket.destroy()
  return { statuses, elapsedMs }
}

/** Half of the keys have the id of a key that exists, the others one of nobody's; all have a right checksum. */
function requestOf(host: string, idSeed: string | undefined, index: number): string {
  const head = `GET /v1/models HTTP/1.1\r\nhost: ${host}\r\n`
  if (idSeed === undefined) return `${head}\r\n`
  const idBytes = createHash('sha256').update(idSeed).digest().subarray(0, 8)
  const { key } = index % 2 === 0 ? generateKey(undefined, 'live', idBytes) : generateKey()
  return `${head}authorization: Bearer ${key}\r\n\r\n`
}
