import { createHmac, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { DomainEvent } from '../../src/outbox/domain-event.ts'

/** What a receiver does with one request: a status to answer with, or nothing at all. */
export type Mood = (event: DomainEvent) => number | 'hang' | 'cut'

export interface WebhookReceiver {
  readonly url: string
  /** As EVENTS_WEBHOOK_SECRET. */
  readonly secret: string
  /** What was taken, in order, repetitions too. */
  readonly taken: DomainEvent[]
  /** Requests whose signature was wrong. */
  readonly forged: () => number
  setMood(mood: Mood): void
  close(): Promise<void>
}

/** A receiver of webhooks that checks signatures, on loopback. */
export async function startWebhookReceiver(): Promise<WebhookReceiver> {
  const key = Buffer.alloc(32, 1)
  const taken: DomainEvent[] = []
  let mood: Mood = () => 204
  let forged = 0
  const server = createServer(async (request, response) => {
    let body = ''
    try {
      for await (const chunk of request.setEncoding('utf8')) body += chunk
    } catch {
      // The sender was killed in the middle.
      return
    }
    const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature } = request.headers
    const expected = `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`
    const isSigned =
      String(signature).length === expected.length &&
      timingSafeEqual(Buffer.from(String(signature)), Buffer.from(expected))
    if (!isSigned) forged += 1
    const event: DomainEvent = JSON.parse(body)
    const answer = mood(event)
    if (answer === 'hang') return
    if (answer === 'cut') return void response.destroy()
    if (answer < 300) taken.push(event)
    response.writeHead(answer, answer === 429 ? { 'retry-after': '1' } : {}).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/hook`,
    secret: `whsec_${key.toString('base64')}`,
    taken,
    forged: () => forged,
    setMood(next) {
      mood = next
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
