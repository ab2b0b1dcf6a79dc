import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isObject } from '../../src/is-object.ts'

/** A request that the registry got. */
export interface AskedOfRegistry {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly apiKey: string | undefined
  readonly body: unknown
}

/** What it does with a request; undefined: what a registry does. */
export type RegistryMood = (asked: AskedOfRegistry, response: ServerResponse) => boolean | undefined

export interface MadeRegistry {
  readonly url: string
  /** All requests, in order. */
  readonly asked: AskedOfRegistry[]
  /** What it lists; a registration is added to it. */
  entries: Record<string, unknown>[]
  /** True when the mood has answered. */
  setMood(mood: RegistryMood): void
  close(): Promise<void>
}

/** An LLM-Registry that somebody else could have written: the routes of reference 004 §6.1, a list, and moods. */
export async function startMadeRegistry(): Promise<MadeRegistry> {
  const asked: AskedOfRegistry[] = []
  let mood: RegistryMood = () => false
  const server = createServer(async (request, response) => {
    const one = await read(request)
    asked.push(one)
    if (mood(one, response) === true) return
    serve(one, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo

  function serve({ method, path, query, body }: AskedOfRegistry, response: ServerResponse): void {
    const id = decodeURIComponent(path.split('/').at(-1) ?? '')
    if (method === 'POST') {
      const isTaken = made.entries.some((entry) => isSame(entry, body))
      const entry = { id: `made-${asked.length}`, registered_at: '2026-11-21T00:00:00Z', ...Object(body) }
      if (!isTaken) made.entries.push(entry)
      answer(response, isTaken ? 409 : 201, isTaken ? {} : entry)
    } else if (method === 'PUT') {
      const known = made.entries.find((entry) => entry.id === id)
      made.entries = made.entries.map((entry) => (entry === known ? { ...entry, ...Object(body) } : entry))
      answer(response, known === undefined ? 404 : 200, {})
    } else {
      answer(response, 200, pageOf(query))
    }
  }

  function pageOf(query: URLSearchParams): object {
    const size = Number(query.get('page_size') ?? 50)
    const from = Number(query.get('page_token') ?? 0)
    const found = made.entries.filter(({ name, version }) => {
      return (query.get('name') ?? name) === name && (query.get('version') ?? version) === version
    })
    const next = from + size < found.length ? String(from + size) : ''
    return { services: found.slice(from, from + size), next_page_token: next }
  }

  const made: MadeRegistry = {
    url: `http://127.0.0.1:${port}`,
    asked,
    entries: [],
    setMood(next) {
      mood = next
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return made
}

/** A mood that answers everything with a status and a body. */
export function answering(status: number, body: unknown = {}, headers: Record<string, string> = {}): RegistryMood {
  return (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
    return true
  }
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

async function read(request: IncomingMessage): Promise<AskedOfRegistry> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += chunk
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://registry')
  const apiKey = request.headers['x-api-key']
  return {
    method: request.method ?? '',
    path: pathname,
    query: searchParams,
    apiKey: typeof apiKey === 'string' ? apiKey : undefined,
    body: text === '' ? undefined : JSON.parse(text),
  }
}

function isSame(entry: Record<string, unknown>, body: unknown): boolean {
  return isObject(body) && entry.name === body.name && entry.version === body.version
}
