import { createServer } from 'node:http'
import { duplexPair } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HeadReader } from './head-reader.ts'
import { plain, request, unusualRequests } from './unusual-requests.ts'

/** What a reader makes of bytes that are one request, and nothing else; undefined of all others. */
type Read = { readonly method?: string; readonly url?: string; readonly headers: object; body: string } | undefined

/** As Node's own server reads it. */
function byNode(bytes: Buffer): Promise<Read> {
  const { promise, resolve } = Promise.withResolvers<Read>()
  const requests: NonNullable<Read>[] = []
  const server = createServer({ keepAliveTimeout: 0 }, async (request, response) => {
    const { method = '', url = '', headers } = request
    const read = { method, url, headers: { ...headers }, body: '' }
    requests.push(read)
    request.setEncoding('latin1').on('data', (part: string) => {
      read.body += part
    })
    request.on('end', () => response.end())
    request.on('error', () => {})
  })
  const [caller, socket] = duplexPair()
  const none = (): void => resolve(undefined)
  for (const event of ['clientError', 'upgrade', 'connect', 'checkContinue', 'checkExpectation']) server.on(event, none)
  server.emit('connection', socket)
  caller.on('error', none)
  caller.on('close', none)
  caller.on('end', () => resolve(requests.length === 1 ? requests[0] : undefined))
  caller.resume()
  caller.end(bytes)
  return promise.finally(() => socket.destroy())
}

/** As a simple request; undefined, too, for what is not simple. */
function bySimple(bytes: Buffer, reader = new HeadReader()): Read {
  const head = reader.read(bytes)
  if (typeof head !== 'object' || bytes.length !== reader.length + head.bodyLength) return undefined
  const { method, url, headers } = head
  return { method, url, headers: { ...headers }, body: bytes.toString('latin1', reader.length) }
}

const token = fc.stringMatching(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}$/)
const text = fc.stringMatching(/^[ -~\x80-\xff]{0,40}$/)
const simple = fc
  .record({
    method: fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'),
    path: fc.stringMatching(/^\/[!-"$-~]{0,40}$/),
    fields: fc.uniqueArray(fc.tuple(token, fc.constantFrom('', ' ', '   '), text), {
      selector: ([name]) => name.toLowerCase(),
      maxLength: 12,
    }),
    body: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  })
  .map(({ method, path, fields, body }) => {
    const lines = fields.map(([name, blanks, value]) => `${name}:${blanks}${value}`)
    return request([`${method} ${path} HTTP/1.1`, 'host: x', ...lines, `content-length: ${body.length}`], body)
  })

/** A few bytes of it replaced, taken out or put in. */
const changed = (bytes: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> =>
  fc
    .tuple(
      bytes,
      fc.array(fc.record({ at: fc.nat(), cut: fc.nat(2), put: fc.constantFrom(...hostile) }), { maxLength: 3 }),
    )
    .map(([whole, changes]) =>
      changes.reduce((all, { at, cut, put }) => {
        const from = at % (all.length + 1)
        return Buffer.concat([all.subarray(0, from), Buffer.from(put, 'latin1'), all.subarray(from + cut)])
      }, whole),
    )
const hostile = [
  '',
  ' ',
  '\t',
  '\r',
  '\n',
  '\r\n',
  '\0',
  ':',
  ',',
  '0',
  '1',
  '-',
  '+',
  'x',
  '\x7f',
  '\x80',
  '\r\n\r\n',
  '#',
]

describe('a simple request', () => {
  test('is read as Node reads it', async () => {
    let taken = 0
    await fc.assert(
      fc.asyncProperty(simple, async (bytes) => {
        const read = bySimple(bytes)
        if (read === undefined) return
        taken += 1
        expect(read).toEqual(await byNode(bytes))
      }),
      { numRuns: 2_000 },
    )
    // Few have a name by chance that is not simple.
    expect(taken).toBeGreaterThan(1_800)
  })

  test('is one to Node, too, whatever is changed in it', async () => {
    const from = fc.oneof(simple, fc.constant(request(plain, '{"a":')))
    await fc.assert(
      fc.asyncProperty(changed(from), async (bytes) => {
        const read = bySimple(bytes)
        if (read !== undefined) expect(read).toEqual(await byNode(bytes))
      }),
      { numRuns: 10_000 },
    )
  })

  test('is read as by a new reader, whatever was read before', () => {
    const bodies = fc.nat(99_999).map((length) => plain.with(-1, `content-length: ${length}`))
    const lines = fc.oneof(bodies, fc.constant(plain.slice(0, -1)), fc.constant([...plain, 'a: b']))
    const requests = fc.oneof(
      lines.map((each) => request(each)),
      changed(lines.map((each) => request(each))),
      simple,
    )
    fc.assert(
      fc.property(fc.array(requests, { minLength: 2, maxLength: 6 }), (all) => {
        const reader = new HeadReader()
        for (const bytes of all) {
          const fresh = new HeadReader()
          expect(reader.read(bytes)).toEqual(fresh.read(bytes))
          if (typeof fresh.read(bytes) === 'object') expect(reader.length).toBe(fresh.length)
        }
      }),
      { numRuns: 3_000 },
    )
  })

  test('is told from a part of it, wherever it is cut', () => {
    const whole = request(plain)
    for (let at = 1; at < whole.length; at += 1) expect(new HeadReader().read(whole.subarray(0, at))).toBe('part')
    expect(new HeadReader().read(whole)).toMatchObject({ bodyLength: 5, path: '/v1/chat/completions', closes: false })
  })
})

describe('is not simple:', () => {
  test.each(unusualRequests)('%s', (_, bytes) => {
    expect(new HeadReader().read(bytes)).toBeUndefined()
    const afterAnother = new HeadReader()
    expect(afterAnother.read(request(plain))).toBeTypeOf('object')
    expect(afterAnother.read(bytes)).toBeUndefined()
  })
})
