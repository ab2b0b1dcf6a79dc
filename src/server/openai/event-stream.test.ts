import { request as httpRequest, type IncomingMessage } from 'node:http'
import { type ClientHttp2Stream, connect } from 'node:http2'
import type { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { as, type Fixture, keys, startFixture, until } from '../fixture.ts'

let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  await fixture.close()
})

/** An answer that is read as the test likes. */
interface Streamed {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Readable
  leave(): void
}

type Wire = (address: string, path: string, headers: Record<string, string>, body: string) => Promise<Streamed>

const wires: Readonly<Record<string, Wire>> = {
  async 'HTTP/1.1'(address, path, headers, body) {
    const request = httpRequest(address + path, { method: 'POST', headers })
    request.end(body)
    const response = await new Promise<IncomingMessage>((resolve) => request.once('response', resolve))
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: response,
      leave: () => request.destroy(),
    }
  },

  async 'HTTP/2'(address, path, headers, body) {
    const session = connect(address)
    const stream: ClientHttp2Stream = session.request({ ':method': 'POST', ':path': path, ...headers })
    stream.once('close', () => session.close())
    stream.end(body)
    const got = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve))
    return { status: Number(got[':status']), headers: got, body: stream, leave: () => stream.close() }
  },
}

describe.each(Object.entries(wires))('a stream over %s', (_name, wire) => {
  function ask(model: string, path = '/v1/chat/completions', more: Record<string, string> = {}): Promise<Streamed> {
    const headers = { 'content-type': 'application/json', ...as(keys.own).headers, ...more }
    return wire(fixture.server.address, path, headers, JSON.stringify({ model, stream: true }))
  }

  async function textOf({ body }: Streamed): Promise<string> {
    const chunks: Uint8Array[] = []
    for await (const chunk of body) chunks.push(chunk)
    return Buffer.concat(chunks).toString()
  }

  test.each(['/v1/chat/completions', '/v1/completions'])(
    'of %s has its events, its end and its headers',
    async (path) => {
      const answer = await ask('alpha', path)
      expect(answer.status).toBe(200)
      expect(answer.headers).toMatchObject({
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache',
        'x-accel-buffering': 'no',
        'x-request-id': expect.stringMatching(/^recorded-/),
        'x-ratelimit-remaining-requests': '19',
        'openai-processing-ms': expect.stringMatching(/^\d+$/),
      })
      expect(await textOf(answer)).toBe('data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n')
      await until(() => fixture.ended.at(-1)?.reason === 'OK')
      expect(fixture.ended.at(-1)?.rpc).toBe(`POST ${path}`)
    },
  )

  test('is handed on at once, not when it is over', async () => {
    const answer = await ask('held')
    const first = await new Promise((resolve) => answer.body.once('data', resolve))
    expect(String(first)).toBe('data: {"n":1}\n\n')
    fixture.release()
    expect(await textOf(answer)).toBe('data: {"n":2}\n\ndata: [DONE]\n\n')
  })

  test('that fails before its first output is an ordinary error', async () => {
    const answer = await ask('RATE_LIMITED')
    expect(answer.status).toBe(429)
    expect(answer.headers).toMatchObject({
      'content-type': 'application/json',
      'x-should-retry': 'true',
      'retry-after-ms': '1250',
    })
    expect(JSON.parse(await textOf(answer))).toMatchObject({ error: { code: 'rate_limit_exceeded' } })
  })

  test.each([
    ['late:BACKEND_FAILED', 'backend_failed', 'refused: BACKEND_FAILED'],
    ['late:crash', 'internal', 'internal error'],
    ['cut', 'internal', 'internal error'],
  ])('that fails later (%s) ends with an error event and no [DONE]', async (model, code, message) => {
    const answer = await ask(model)
    expect(answer.status).toBe(200)
    const [first, event, ...rest] = (await textOf(answer)).split('\n\n')
    expect([first, rest]).toEqual(['data: {"n":1}', ['']])
    expect(JSON.parse(event?.replace(/^data: /, '') ?? '')).toEqual({
      error: { message, type: 'server_error', param: null, code },
    })
    await until(() => fixture.ended.at(-1)?.reason === code.toUpperCase())
  })

  test('stops at the backend when its caller reads no more, and goes on when it does', async () => {
    fixture.asked.taken = 0
    const answer = await ask('flood')
    const settled = await stable(() => fixture.asked.taken)
    // Windows and buffers on the way hold some; a flood without an end would not come to rest.
    expect(settled * 65_536).toBeLessThan(32 * 1024 * 1024)
    answer.body.resume()
    await until(() => fixture.asked.taken > 2 * settled)
    answer.leave()
    await until(() => fixture.asked.open === 0 && fixture.server.activeCalls() === 0)
  })

  test('is told of its deadline, whatever the gate does', async () => {
    const answer = await ask('held', '/v1/chat/completions', { 'x-request-timeout-ms': '1000' })
    expect(await textOf(answer)).toMatch(/"code":"deadline_exceeded"}}\n\n$/)
    await until(() => fixture.ended.at(-1)?.reason === 'DEADLINE_EXCEEDED')
    fixture.release()
    await until(() => fixture.asked.open === 0)
  })

  test('ends when its caller leaves', async () => {
    const answer = await ask('held')
    await new Promise((resolve) => answer.body.once('data', resolve))
    answer.body.on('error', () => {})
    answer.leave()
    await until(() => fixture.ended.at(-1)?.reason === 'CANCELLED')
    // The gate of this test does not hear it: the call stays known until it ends.
    expect(fixture.server.activeCalls()).toBe(1)
    fixture.release()
    await until(() => fixture.asked.open === 0 && fixture.server.activeCalls() === 0)
  })
})

test('a stream of embeddings is refused with the field', async () => {
  const response = await fetch(`${fixture.server.address}/v1/embeddings`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...as(keys.own).headers },
    body: '{"model":"alpha","stream":true}',
  })
  expect(response.status).toBe(400)
  expect(await response.json()).toMatchObject({ error: { param: 'stream' } })
})

/** A figure's value once it has not changed for many turns of the loop. */
async function stable(figure: () => number): Promise<number> {
  let last = -1
  let unchanged = 0
  await until(() => {
    unchanged = figure() === last ? unchanged + 1 : 0
    last = figure()
    return unchanged > 2000
  })
  return last
}
