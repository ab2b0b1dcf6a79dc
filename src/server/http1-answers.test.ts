import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Fixture, keys, startFixture, until } from './fixture.ts'

/** What goes over a bare socket: how requests come apart and together, and how answers are put down. */
let fixture: Fixture
beforeAll(async () => {
  fixture = await startFixture()
})
afterAll(async () => {
  fixture.release()
  await fixture.close()
})

const route = '/marketplace.v1.ConsumptionService/RouteRequest'

/** The echo of the fixture's gate: the answer's body is the request's. */
function chat(
  body: string | Uint8Array,
  more: readonly string[] = [],
  line = 'POST /v1/chat/completions HTTP/1.1',
): Buffer {
  const bytes = Buffer.from(body)
  const headers = ['host: x', `x-api-key: ${keys.own}`, 'content-type: application/json', ...more]
  return Buffer.concat([Buffer.from([line, ...headers, `content-length: ${bytes.length}`, '', ''].join('\r\n')), bytes])
}

interface Answer {
  readonly head: string
  readonly body: Buffer
}

/** The next answers on a connection, by their content-length. */
class Answers {
  readonly socket: Socket
  isClosed = false
  #bytes = Buffer.alloc(0)

  constructor() {
    this.socket = connect(fixture.server.port, fixture.server.host).setNoDelay()
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.isClosed = true
    })
    this.socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
    })
  }

  /** All that came and was not taken as an answer. */
  get rest(): string {
    return this.#bytes.toString('latin1')
  }

  async next(hasBody = true): Promise<Answer> {
    await until(() => this.#end(hasBody) !== undefined)
    const headEnd = this.#bytes.indexOf('\r\n\r\n')
    const end = this.#end(hasBody) ?? 0
    const answer = { head: this.#bytes.toString('latin1', 0, headEnd), body: this.#bytes.subarray(headEnd + 4, end) }
    this.#bytes = this.#bytes.subarray(end)
    return answer
  }

  async send(bytes: Uint8Array): Promise<void> {
    await new Promise((resolve) => this.socket.write(bytes, resolve))
  }

  #end(hasBody: boolean): number | undefined {
    const headEnd = this.#bytes.indexOf('\r\n\r\n')
    if (headEnd < 0) return undefined
    const length = /\r\ncontent-length: (\d+)/i.exec(this.#bytes.toString('latin1', 0, headEnd))?.[1] ?? '0'
    const end = headEnd + 4 + (hasBody ? Number(length) : 0)
    return this.#bytes.length < end ? undefined : end
  }
}

describe('answers', () => {
  test('of pipelined requests come in their order, one that waits holds those behind it', async () => {
    const answers = new Answers()
    const bodies = ['{"model":"held","n":1}', '{"model":"b","n":2}', '{"model":"RATE_LIMITED"}', '{"model":"d","n":4}']
    const before = fixture.asked.requests.length
    await answers.send(Buffer.concat(bodies.map((body) => chat(body))))
    await until(() => fixture.asked.requests.length === before + bodies.length)
    expect(answers.rest).toBe('')
    fixture.release()
    const [first, second, third, fourth] = [
      await answers.next(),
      await answers.next(),
      await answers.next(),
      await answers.next(),
    ]
    expect([first, second, fourth].map(({ body }) => body.toString())).toEqual([bodies[0], bodies[1], bodies[3]])
    expect(third.head).toMatch(/^HTTP\/1.1 429 /)
    expect(answers.rest).toBe('')
    answers.socket.destroy()
  })

  test.each([0, 1, 13_000, 15_000, 16_384, 70_000])(
    'with %d bytes of text in UTF-8 arrive as they are',
    async (bytes) => {
      const answers = new Answers()
      for (const character of ['a', 'é', '😀', '\u0000']) {
        const body = JSON.stringify({ model: 'echo', text: character.repeat(bytes) })
        await answers.send(chat(body))
        const answer = await answers.next()
        expect(answer.head).toMatch(/^HTTP\/1.1 200 OK\r\n/)
        expect(answer.body.equals(Buffer.from(body))).toBe(true)
      }
      expect(answers.rest).toBe('')
      answers.socket.destroy()
    },
  )

  test('end the connection when the caller asks for it, or speaks HTTP/1.0', async () => {
    for (const request of [
      chat('{"model":"echo"}', ['connection: close']),
      chat('{"model":"echo"}', [], 'POST /v1/chat/completions HTTP/1.0'),
    ]) {
      const answers = new Answers()
      await answers.send(request)
      const { head, body } = await answers.next()
      expect(head.toLowerCase()).toContain('connection: close')
      expect(body.toString()).toBe('{"model":"echo"}')
      await until(() => answers.isClosed)
      expect(answers.rest).toBe('')
    }
  })

  test('come after 100 Continue when that is expected', async () => {
    const answers = new Answers()
    const request = chat('{"model":"echo"}', ['expect: 100-continue'])
    const headEnd = request.indexOf('\r\n\r\n') + 4
    await answers.send(request.subarray(0, headEnd))
    expect((await answers.next()).head).toBe('HTTP/1.1 100 Continue')
    await answers.send(request.subarray(headEnd))
    expect((await answers.next()).body.toString()).toBe('{"model":"echo"}')
    answers.socket.destroy()
  })

  test('to HEAD have no body', async () => {
    const answers = new Answers()
    await answers.send(Buffer.from(`HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n`))
    expect((await answers.next(false)).head).toMatch(/^HTTP\/1.1 200 OK\r\n/)
    await answers.send(chat('{"model":"echo"}'))
    expect((await answers.next()).body.toString()).toBe('{"model":"echo"}')
    answers.socket.destroy()
  })

  test.each(['\r\nx-evil: 1', '\nx-evil: 1', '\rx-evil: 1', '\u0000', '…'])(
    'are cut rather than split by %j in the value of a header',
    async (hostile) => {
      const answers = new Answers()
      const request = chat(JSON.stringify({ serviceId: `echo${hostile}` }), [], `POST ${route} HTTP/1.1`)
      await answers.send(request)
      await until(() => answers.isClosed)
      expect(answers.rest).toBe('')
    },
  )

  test('that nobody reads any more leave no call behind', async () => {
    const answers = new Answers()
    answers.socket.pause()
    const before = fixture.ended.length
    const body = JSON.stringify({ model: 'echo', text: 'x'.repeat(3_000_000) })
    for (let count = 0; count < 3; count++) answers.socket.write(chat(body))
    await until(() => fixture.asked.requests.at(-1)?.payload.length === body.length)
    answers.socket.destroy()
    await until(() => fixture.server.activeCalls() === 0)
    expect(fixture.ended.length).toBeGreaterThan(before)
  })
})

describe('a request', () => {
  test('that comes in two packets is read as a whole, wherever it is cut', async () => {
    const answers = new Answers()
    const body = '{"model":"echo","text":"é"}'
    const request = chat(body)
    for (let at = 1; at < request.length; at++) {
      await answers.send(request.subarray(0, at))
      await new Promise((resolve) => setImmediate(resolve))
      await answers.send(request.subarray(at))
      expect((await answers.next()).body.toString()).toBe(body)
    }
    answers.socket.destroy()
  })

  test('whose caller leaves wherever in it is over', async () => {
    const request = chat('{"model":"echo"}')
    for (let at = 1; at < request.length; at += 7) {
      const answers = new Answers()
      await answers.send(request.subarray(0, at))
      answers.socket.destroy()
    }
    await until(() => fixture.server.activeCalls() === 0)
  })
})
