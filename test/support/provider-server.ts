import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { type Json, parseJson } from './json.ts'

/** What a server of a provider's API does wrong, until it is told otherwise. */
export type ProviderFault = 'none' | 'overloaded' | 'too_long' | 'error_in_stream' | 'cut'

/** A server of a provider's API on loopback, that answers by a script. */
export interface ProviderServer {
  readonly url: string
  /** Requests that it accepted, oldest first. */
  readonly received: ProviderRequest[]
  fault: ProviderFault
  close(): Promise<void>
}

export interface ProviderRequest {
  /** With its query. */
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Json
}

/** A whole answer, or the events of a stream, of which the last ones are those that finish it. */
export type ProviderAnswer =
  | { readonly status: number; readonly body: Json }
  | { readonly events: readonly string[]; readonly failure: string; readonly delivered: number }

/** Starts a server. `answer` makes the answer of one request; a refusal of status 4xx counts as not accepted. */
export async function startProviderServer(
  answer: (request: ProviderRequest, fault: ProviderFault) => ProviderAnswer,
): Promise<ProviderServer> {
  const received: ProviderRequest[] = []
  const provider: { fault: ProviderFault } = { fault: 'none' }

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk)
    const body = parseJson(Buffer.concat(chunks).toString())
    const request = { path: incoming.url ?? '', headers: incoming.headers, body }
    const answered = answer(request, provider.fault)
    if ('status' in answered) {
      if (answered.status < 400) received.push(request)
      outgoing.writeHead(answered.status, { 'content-type': 'application/json' })
      outgoing.end(JSON.stringify(answered.body))
      return
    }
    received.push(request)
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' })
    const { events, failure, delivered } = answered
    const { fault } = provider
    for (const event of fault === 'none' ? events : events.slice(0, delivered)) outgoing.write(event)
    outgoing.end(fault === 'error_in_stream' ? failure : '')
  }

  const server = createServer((incoming, outgoing) => {
    serve(incoming, outgoing).catch((error: unknown) => outgoing.destroy(error instanceof Error ? error : undefined))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  return Object.assign(provider, {
    url: `http://127.0.0.1:${address.port}`,
    received,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  })
}

/** What the model says: it asks for the weather when it may, and tells it when it knows. */
export interface Turn {
  readonly texts: readonly string[]
  readonly call: { readonly name: string; readonly city: string } | undefined
}

export function turnOf(hasTools: boolean, knowsWeather: boolean): Turn {
  if (knowsWeather) return { texts: ['It is ', '21 °C', ' in Zürich.'], call: undefined }
  if (!hasTools) return { texts: ['Grüezi', ' mitenand.'], call: undefined }
  return { texts: ['Let me ', 'look.'], call: { name: 'get_weather', city: 'Zürich' } }
}

/** Words of all texts in a document: what these servers count as tokens. */
export function countWords(value: Json | undefined): number {
  if (typeof value === 'string') return value.split(/\s+/).filter((word) => word !== '').length
  if (typeof value !== 'object' || value === null) return 0
  return Object.values(value).reduce<number>((sum, member) => sum + countWords(member), 0)
}
