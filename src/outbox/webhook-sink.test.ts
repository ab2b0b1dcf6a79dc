import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { DomainEvent } from './domain-event.ts'
import type { OutboxSink } from './outbox-sink.ts'
import { webhookKey } from './webhook-signature.ts'
import { createWebhookSink } from './webhook-sink.ts'

const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
const key = webhookKey(secret) ?? Buffer.alloc(0)
const nowMs = Date.UTC(2026, 10, 21)

interface Received {
  readonly body: string
  readonly headers: IncomingMessage['headers']
}

let server: Server
let sink: OutboxSink
let received: Received[]
let answer: (event: DomainEvent, response: ServerResponse) => void
const forever = new AbortController().signal

beforeEach(async () => {
  received = []
  answer = (_event, response) => response.writeHead(204).end()
  server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    received.push({ body, headers: request.headers })
    answer(JSON.parse(body), response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  sink = createWebhookSink({ url: `http://127.0.0.1:${port}/hook`, key, timeoutMs: 500, now: () => nowMs })
})

afterEach(async () => {
  await sink.close()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

function event(subject: string, position: number): DomainEvent {
  return {
    specversion: '1.0',
    id: `id-${position}`,
    source: '/test',
    type: 'tollgate.service.updated',
    subject,
    time: new Date(nowMs).toISOString(),
    partitionkey: subject,
    sequence: String(position),
    datacontenttype: 'application/json',
    data: { position, actor: 'a', requestId: '', resource: { text: 'ß' } },
  }
}

test('an event is posted as one document, signed as Standard Webhooks are', async () => {
  const sent = event('service/a', 1)
  expect(await sink.deliver([sent], forever)).toEqual(['delivered'])
  const [{ body, headers } = { body: '', headers: {} }] = received
  expect(JSON.parse(body)).toEqual(sent)
  expect(headers['content-type']).toBe('application/cloudevents+json; charset=UTF-8')
  expect(headers['webhook-id']).toBe('id-1')
  expect(headers['webhook-timestamp']).toBe(String(nowMs / 1000))
  const signature = createHmac('sha256', Buffer.alloc(32, 7))
    .update(`id-1.${nowMs / 1000}.${body}`)
    .digest('base64')
  expect(headers['webhook-signature']).toBe(`v1,${signature}`)
})

test('of a subject nothing is sent after what failed; other subjects go on', async () => {
  answer = ({ data }, response) => response.writeHead(data.position === 2 ? 500 : 200).end()
  const events = [event('service/a', 1), event('service/a', 2), event('service/b', 3), event('service/a', 4)]
  const failed = { reason: 'HTTP 500', isFinal: false, retryAfterMs: undefined }
  expect(await sink.deliver(events, forever)).toEqual(['delivered', failed, 'delivered', 'held_back'])
  expect(received.map(({ headers }) => headers['webhook-id']).sort()).toEqual(['id-1', 'id-2', 'id-3'])
})

test.each([
  [400, true],
  [413, true],
  [415, true],
  [422, true],
  [401, false],
  [404, false],
  [408, false],
  [301, false],
  [500, false],
])('HTTP %d is no receipt, and final: %s', async (status, isFinal) => {
  answer = (_event, response) => response.writeHead(status, { location: '/elsewhere' }).end('a text of theirs')
  expect(await sink.deliver([event('service/a', 1)], forever)).toEqual([
    { reason: `HTTP ${status}`, isFinal, retryAfterMs: undefined },
  ])
  expect(received).toHaveLength(1)
})

test('Retry-After is heard', async () => {
  answer = (_event, response) => response.writeHead(429, { 'retry-after': '7' }).end()
  expect(await sink.deliver([event('service/a', 1)], forever)).toMatchObject([{ retryAfterMs: 7_000, isFinal: false }])
})

test('one that hangs, and one that cuts the connection, has failed', async () => {
  answer = ({ subject }, response) => {
    if (subject === 'service/cut') response.destroy()
  }
  const [hung, cut] = await sink.deliver([event('service/hang', 1), event('service/cut', 2)], forever)
  expect(hung).toEqual({ reason: 'no answer within 500 ms', isFinal: false, retryAfterMs: undefined })
  expect(cut).toMatchObject({ isFinal: false })
})

test('what is given up by us is no failure of the receiver', async () => {
  answer = () => {}
  const leaving = new AbortController()
  const delivering = sink.deliver([event('service/a', 1), event('service/a', 2)], leaving.signal)
  while (received.length === 0) await new Promise((resolve) => setImmediate(resolve))
  leaving.abort()
  expect(await delivering).toEqual(['held_back', 'held_back'])
})

test.each(['', 'secret', 'whsec_', 'whsec_c2hvcnQ=', `whsec_${'!'.repeat(40)}`])('%s is no secret', (text) => {
  expect(webhookKey(text)).toBeUndefined()
})
