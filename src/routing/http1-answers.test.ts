import { createServer, type IncomingHttpHeaders, request as nodeRequest, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer, type Server } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AnswerReader } from './http1-answers.ts'

/** What a reader told of an answer. */
interface Told {
  status: number
  headers: IncomingHttpHeaders
  body: string
  trailers: IncomingHttpHeaders | undefined
  /** Undefined while it waits for more. */
  end: 'whole' | 'broken' | undefined
  /** Of a whole one: whether its connection may have another request. */
  isReusable: boolean
  keepAliveMs: number | undefined
  why: string
}

/** Reads an answer that comes in these parts, and after which the connection ends or stays. */
function read(parts: readonly Buffer[], isEnded: boolean): Told {
  const told: Told = {
    status: 0,
    headers: {},
    body: '',
    trailers: undefined,
    end: undefined,
    isReusable: false,
    keepAliveMs: undefined,
    why: '',
  }
  const chunks: Buffer[] = []
  const reader = new AnswerReader({
    onHead(status, headers) {
      expect(told.status, 'one head').toBe(0)
      told.status = status
      told.headers = headers
    },
    onBody(chunk) {
      expect(told.end, 'the body comes before the end').toBe(undefined)
      chunks.push(chunk)
    },
    onEnd(trailers, isReusable, keepAliveMs) {
      expect(told.end, 'one end').toBe(undefined)
      Object.assign(told, { end: 'whole', trailers, isReusable, keepAliveMs })
    },
    onBroken(error) {
      expect(told.end, 'one end').toBe(undefined)
      Object.assign(told, { end: 'broken', why: error.message })
    },
  })
  reader.begin()
  for (const part of parts) {
    // Where more comes behind the answer, its connection is given up.
    if (told.end === 'whole') told.isReusable = false
    // What is read into is larger than what was read, and the next read changes it.
    const room = Buffer.alloc(part.length + 8, 'z')
    part.copy(room)
    reader.push(room, part.length)
    room.fill('!')
  }
  if (isEnded) reader.finish()
  return { ...told, body: Buffer.concat(chunks).toString('latin1') }
}

function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.filter((place) => place < bytes.length).toSorted((a, b) => a - b), bytes.length]
  return places.slice(1).map((place, n) => bytes.subarray(places[n], place))
}

function byByte(bytes: Buffer): Buffer[] {
  return Array.from(bytes, (byte) => Buffer.from([byte]))
}

interface Good {
  readonly name: string
  readonly bytes: string
  /** The connection ends behind it. */
  readonly isEnded?: boolean
  readonly told: Partial<Told>
}

const many = (n: number): string => Array.from({ length: n }, (_, at) => `x-${at}: y\r\n`).join('')

const good: readonly Good[] = [
  {
    name: 'a counted body',
    bytes: 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}',
    told: { status: 200, headers: { 'content-type': 'application/json', 'content-length': '2' }, body: '{}' },
  },
  {
    name: 'an empty body',
    bytes: 'HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n',
    told: { status: 500, headers: { 'content-length': '0' }, body: '' },
  },
  {
    name: 'names in capitals, blanks around values, a value that is empty, one in Latin-1',
    bytes: 'HTTP/1.1 200 OK\r\nX-A:a b\r\nX-B: \t b \t\r\nX-C:\r\nX-D: caf\xe9\r\ncontent-length:1\r\n\r\nx',
    told: { headers: { 'x-a': 'a b', 'x-b': 'b', 'x-c': '', 'x-d': 'caf\xe9', 'content-length': '1' }, body: 'x' },
  },
  {
    name: 'fields of one name, and names that objects have',
    bytes: 'HTTP/1.1 429 Busy\r\na: 1\r\nA: 2\r\na: 3\r\nconstructor: 4\r\ncontent-length: 0\r\n\r\n',
    told: { status: 429, headers: { a: ['1', '2', '3'], constructor: '4', 'content-length': '0' } as never },
  },
  {
    name: 'no reason, not even the space before it',
    bytes: 'HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx',
    told: { status: 200, body: 'x' },
  },
  {
    name: 'a status that nobody knows',
    bytes: 'HTTP/1.1 999 Caf\xe9\r\ncontent-length: 1\r\n\r\nx',
    told: { status: 999, body: 'x' },
  },
  {
    name: 'chunks, with sizes in both cases, zeros before them and extensions',
    bytes:
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n' +
      '3\r\nabc\r\n000A\r\n0123456789\r\nb;a=b;c="d"\r\nhello\r\nworl\r\n1;x\r\n!\r\n0;end\r\n\r\n',
    told: { body: 'abc0123456789hello\r\nworl!', trailers: {} },
  },
  {
    name: 'fields behind the last chunk',
    bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n',
    told: { body: 'x', headers: { 'transfer-encoding': 'chunked' }, trailers: { 'x-sum': '7' } },
  },
  {
    name: 'chunks without a body',
    bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    told: { body: '', trailers: {} },
  },
  {
    name: 'a body until the connection ends',
    bytes: 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it\r\n\r\n',
    isEnded: true,
    told: { body: 'all of it\r\n\r\n', isReusable: false },
  },
  {
    name: 'an empty body until the connection ends',
    bytes: 'HTTP/1.1 200 OK\r\n\r\n',
    isEnded: true,
    told: { body: '', isReusable: false },
  },
  {
    name: 'a body until the connection ends, in HTTP/1.0',
    bytes: 'HTTP/1.0 200 OK\r\n\r\nold',
    isEnded: true,
    told: { body: 'old', isReusable: false },
  },
  {
    name: 'a counted body in HTTP/1.0, whose connection ends',
    bytes: 'HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold',
    told: { body: 'old', isReusable: false },
  },
  {
    name: 'a counted body in HTTP/1.0, whose connection stays',
    bytes: 'HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 3\r\n\r\nold',
    told: { body: 'old', isReusable: true },
  },
  {
    name: 'a connection that is to be closed',
    bytes: 'HTTP/1.1 200 OK\r\nconnection: foo , Close\r\ncontent-length: 1\r\n\r\nx',
    told: { body: 'x', isReusable: false },
  },
  {
    name: 'a connection that is to be closed, said in the second field',
    bytes: 'HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nConnection: close\r\ncontent-length: 1\r\n\r\nx',
    told: { body: 'x', isReusable: false },
  },
  {
    name: 'how long the connection is kept',
    bytes: 'HTTP/1.1 200 OK\r\nKeep-Alive: max=7, Timeout=5\r\ncontent-length: 1\r\n\r\nx',
    told: { body: 'x', isReusable: true, keepAliveMs: 5_000 },
  },
  { name: '204', bytes: 'HTTP/1.1 204 No Content\r\n\r\n', told: { status: 204, body: '' } },
  { name: '304', bytes: 'HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n', told: { status: 304, body: '' } },
  {
    name: '304 with the length of what it does not send',
    bytes: 'HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n',
    told: { status: 304, body: '', isReusable: false },
  },
  {
    name: '204 with a body, which is none',
    bytes: 'HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    told: { status: 204, body: '', isReusable: false },
  },
  {
    name: 'interim answers before it',
    bytes:
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n' +
      'HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx',
    told: { status: 200, headers: { 'content-length': '1' }, body: 'x' },
  },
  {
    name: 'more than an answer, which costs the connection',
    bytes: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged',
    told: { body: 'x', isReusable: false },
  },
  {
    name: 'an empty line behind its chunks, which costs the connection',
    bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\r\n',
    told: { body: '', isReusable: false },
  },
  {
    name: 'as many fields as there may be',
    bytes: `HTTP/1.1 200 OK\r\n${many(255)}content-length: 1\r\n\r\nx`,
    told: { body: 'x' },
  },
  {
    name: 'as long a head as there may be',
    bytes: `HTTP/1.1 200 OK\r\nlong: ${'y'.repeat(16_384 - 17 - 8 - 19 - 2)}\r\ncontent-length: 1\r\n\r\nx`,
    told: { body: 'x' },
  },
]

interface Bad {
  readonly name: string
  readonly bytes: string
  readonly why: RegExp
  /** What came before it was seen. */
  readonly told?: Partial<Told>
}

const head = 'HTTP/1.1 200 OK\r\n'
const chunked = `${head}transfer-encoding: chunked\r\n\r\n`

const bad: readonly Bad[] = [
  {
    name: 'both length and coding',
    bytes: `${head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n`,
    why: /both/,
  },
  {
    name: 'both coding and length',
    bytes: `${head}transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n`,
    why: /both/,
  },
  { name: 'two lengths', bytes: `${head}content-length: 1\r\nContent-Length: 2\r\n\r\n`, why: /two content-length/ },
  {
    name: 'one length twice',
    bytes: `${head}content-length: 1\r\ncontent-length: 1\r\n\r\n`,
    why: /two content-length/,
  },
  ...['', '-1', '+1', '1, 1', '0x1', '1 1', '1.0', '1e1', 'x', '1\t', '9'.repeat(16)].map((length) => ({
    name: `content-length ${JSON.stringify(length)}`,
    bytes: `${head}content-length: ${length}\r\n\r\n`,
    why: /content-length is no number/,
  })),
  ...[
    '',
    'identity',
    'gzip, chunked',
    'chunked, chunked',
    'chunked;q=1',
    'xchunked',
    'chunked\v',
    'chunked\t',
    '"chunked"',
  ].map((coding) => ({
    name: `transfer-encoding ${JSON.stringify(coding)}`,
    bytes: `${head}transfer-encoding: ${coding}\r\n\r\n`,
    why: /transfer-encoding is not|control character/,
  })),
  {
    name: 'a coding twice',
    bytes: `${head}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n`,
    why: /transfer-encoding is not/,
  },
  {
    name: 'a coding in HTTP/1.0',
    bytes: 'HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n',
    why: /transfer-encoding is not/,
  },
  { name: 'a folded field', bytes: `${head}a: b\r\n c\r\n\r\n`, why: /no field/ },
  { name: 'a folded field, by a tab', bytes: `${head}a: b\r\n\tc: d\r\n\r\n`, why: /no field/ },
  { name: 'a blank before the first name', bytes: `${head} a: b\r\n\r\n`, why: /no field/ },
  { name: 'a blank behind a name', bytes: `${head}content-length : 1\r\n\r\n`, why: /no field/ },
  { name: 'no name', bytes: `${head}: b\r\n\r\n`, why: /no field/ },
  { name: 'no colon', bytes: `${head}a b\r\n\r\n`, why: /no field/ },
  { name: 'a name that is no token', bytes: `${head}a(b): c\r\n\r\n`, why: /no field/ },
  { name: 'a name in Latin-1', bytes: `${head}caf\xe9: c\r\n\r\n`, why: /no field/ },
  { name: 'NUL in a value', bytes: `${head}a: b\0c\r\n\r\n`, why: /control character/ },
  { name: 'NUL in a name', bytes: `${head}a\0b: c\r\n\r\n`, why: /control character/ },
  { name: 'a control character in a value', bytes: `${head}a: b\x7fc\r\n\r\n`, why: /control character/ },
  { name: 'a control character in a reason', bytes: 'HTTP/1.1 200 O\x01K\r\n\r\n', why: /control character/ },
  { name: 'a bare LF behind the status line', bytes: 'HTTP/1.1 200 OK\na: b\r\n\r\n', why: /ends without CR/ },
  { name: 'a bare LF behind a field', bytes: `${head}a: b\ncontent-length: 1\r\n\r\n`, why: /ends without CR/ },
  { name: 'a bare LF at the end of the head', bytes: `${head}a: b\r\n\n`, why: /ends without CR/ },
  { name: 'a bare CR in a value', bytes: `${head}a: b\rc: d\r\n\r\n`, why: /CR that does not end/ },
  { name: 'two CRs', bytes: `${head}a: b\r\r\n\r\n`, why: /CR that does not end/ },
  { name: 'an empty line before it', bytes: '\r\nHTTP/1.1 200 OK\r\n\r\n', why: /no status line/ },
  ...[
    'HTTP/2.0 200 OK',
    'HTTP/1.2 200 OK',
    'HTTP/1 200 OK',
    'HTTP/1.1  200 OK',
    'HTTP/1.1 20 OK',
    'HTTP/1.1 2000 OK',
    'HTTP/1.1 099 OK',
    'HTTP/1.1 200OK',
    'HTTP/1.1\t200 OK',
    'http/1.1 200 OK',
    ' HTTP/1.1 200 OK',
    'ICY 200 OK',
    '{"error":"no"}',
    'SSH-2.0-OpenSSH_9.2',
  ].map((line) => ({ name: line, bytes: `${line}\r\n\r\n`, why: /no status line/ })),
  ...[
    ['101 Switching', 'upgrade: x'],
    ['100 Continue', 'content-length: 1'],
    ['100 Continue', 'content-length: 0'],
    ['103 Early Hints', 'transfer-encoding: chunked'],
    ['103 Early Hints', 'connection: close'],
  ].map(([status, field]) => ({
    name: `${status} with ${field}`,
    bytes: `HTTP/1.1 ${status}\r\n${field}\r\n\r\n${head}content-length: 1\r\n\r\nx`,
    why: /nothing can follow its interim answer/,
  })),
  { name: '100 in HTTP/1.0', bytes: `HTTP/1.0 100 Continue\r\n\r\n${head}\r\n`, why: /nothing can follow/ },
  { name: 'too many fields', bytes: `${head}${many(257)}\r\n`, why: /more than 256/ },
  { name: 'too long a field', bytes: `${head}a: ${'y'.repeat(16_384)}`, why: /more than 16384 bytes/ },
  { name: 'too long a name', bytes: `${head}${'y'.repeat(17_000)}`, why: /more than 16384 bytes/ },
  { name: 'too long a status line', bytes: `HTTP/1.1 200 ${'y'.repeat(70_000)}`, why: /more than 16384 bytes/ },
  {
    name: 'too long a head by one',
    bytes: `${head}long: ${'y'.repeat(16_384 - 17 - 8 - 1)}\r\n\r\n`,
    why: /16384 bytes/,
  },
  { name: 'too many interim answers', bytes: 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(700), why: /16384 bytes/ },
  ...['', 'x', '0x1', '-1', '+1', ' 1', '1 ', '1\t', '1 ;a', ';a', 'g', '1_0', '1'.repeat(14)].map((size) => ({
    name: `chunk of size ${JSON.stringify(size)}`,
    bytes: `${chunked}1\r\na\r\n${size}\r\nb\r\n0\r\n\r\n`,
    why: /size/,
    told: { status: 200, body: 'a' },
  })),
  { name: 'a size that a bare LF ends', bytes: `${chunked}1\na\r\n0\r\n\r\n`, why: /size/ },
  { name: 'an extension that a bare LF ends', bytes: `${chunked}1;a\na\r\n0\r\n\r\n`, why: /no extension/ },
  { name: 'a bare CR in an extension', bytes: `${chunked}1;a\rb\r\na\r\n`, why: /CRLF/ },
  { name: 'NUL in an extension', bytes: `${chunked}1;\0\r\na\r\n`, why: /no extension/ },
  ...[';', ';=a', ';a=', ';a b', '; a', ';a="b', ';a=b"c"', ';a;;b'].map((extension) => ({
    name: `chunk with the extension ${JSON.stringify(extension)}`,
    bytes: `${chunked}1${extension}\r\na\r\n0\r\n\r\n`,
    why: /no extension/,
  })),
  { name: 'an endless extension', bytes: `${chunked}1;${'a'.repeat(1_000)}`, why: /256 bytes/ },
  { name: 'a chunk longer than its size', bytes: `${chunked}1\r\nab\r\n0\r\n\r\n`, why: /CRLF/, told: { body: 'a' } },
  { name: 'a chunk that a bare LF ends', bytes: `${chunked}1\r\na\n0\r\n\r\n`, why: /CRLF/, told: { body: 'a' } },
  { name: 'a chunk that a bare CR ends', bytes: `${chunked}1\r\na\r0\r\n\r\n`, why: /CRLF/, told: { body: 'a' } },
  { name: 'a length behind the chunks', bytes: `${chunked}0\r\ncontent-length: 1\r\n\r\n`, why: /both/ },
  {
    name: 'a coding behind the chunks',
    bytes: `${chunked}0\r\ntransfer-encoding: chunked\r\n\r\n`,
    why: /not chunked, once/,
  },
  { name: 'a folded field behind the chunks', bytes: `${chunked}0\r\na: b\r\n c\r\n\r\n`, why: /no field/ },
  {
    name: 'too much behind the chunks',
    bytes: `${chunked}0\r\n${`a: ${'b'.repeat(1_000)}\r\n`.repeat(17)}`,
    why: /16384/,
  },
]

/** Cut off wherever: an answer that ends too early is none. */
const early = good.filter(({ isEnded = false }) => !isEnded)

function everyWay(bytes: Buffer, isEnded: boolean): Told {
  const whole = read([bytes], isEnded)
  expect(read(byByte(bytes), isEnded), 'byte by byte').toEqual(whole)
  fc.assert(
    fc.property(fc.array(fc.nat(bytes.length), { maxLength: 8 }), (places) => {
      expect(read(cut(bytes, places), isEnded)).toEqual(whole)
    }),
    { numRuns: 30 },
  )
  return whole
}

describe('is read, whole, byte by byte and however it is cut', () => {
  test.each(good)('$name', ({ bytes, isEnded = false, told }) => {
    expect(everyWay(bytesOf(bytes), isEnded)).toMatchObject({ end: 'whole', isReusable: true, ...told })
  })
})

describe('is refused, whole, byte by byte and however it is cut', () => {
  test.each(bad)('$name', ({ bytes, why, told = {} }) => {
    const broken = everyWay(bytesOf(bytes), false)
    expect(broken).toMatchObject({ end: 'broken', ...told })
    expect(broken.why).toMatch(/^The answer cannot be read: .*\.$/)
    expect(broken.why).toMatch(why)
  })
})

test.each(early)('one that ends too early is none: $name', ({ bytes, told: { body } }) => {
  const all = bytesOf(bytes)
  const { end: isWhole } = read([all], false)
  expect(isWhole).toBe('whole')
  // Up to the last byte that belongs to it.
  let length = all.length
  while (read([all.subarray(0, length - 1)], false).end === 'whole') length -= 1
  for (let at = 0; at < length; at += Math.max(1, Math.floor(length / 200))) {
    const told = read([all.subarray(0, at)], true)
    expect(told.end, `after ${at} bytes`).toBe('broken')
    expect(body ?? told.body).toContain(told.body)
  }
})

test('a reader serves one answer after the other, and keeps nothing of one for the next', () => {
  const told: unknown[] = []
  const reader = new AnswerReader({
    onHead: (status, headers) => told.push([status, headers]),
    onBody: (chunk) => told.push(chunk.toString()),
    onEnd: (trailers, isReusable, keepAliveMs) => told.push([trailers, isReusable, keepAliveMs]),
    onBroken: (error) => told.push(error),
  })
  const next = (text: string): void => {
    reader.begin()
    reader.push(bytesOf(text), text.length)
  }
  next(`${chunked}2;x\r\nab\r\n0\r\nsum: 1\r\n\r\n`)
  next(`HTTP/1.0 404 No\r\nconnection: keep-alive\r\nkeep-alive: timeout=9\r\ncontent-length: 1\r\n\r\nx`)
  next(`${head}content-length: 2\r\n\r\ncd`)
  expect(told).toEqual([
    [200, { 'transfer-encoding': 'chunked' }],
    'ab',
    [{ sum: '1' }, true, undefined],
    [404, { connection: 'keep-alive', 'keep-alive': 'timeout=9', 'content-length': '1' }],
    'x',
    [{}, true, 9_000],
    [200, { 'content-length': '2' }],
    'cd',
    [{}, true, undefined],
  ])
})

test('chunks that come together are told together', () => {
  let times = 0
  const reader = new AnswerReader({
    onHead: () => {},
    onBody: (chunk) => {
      times += 1
      expect(chunk.toString()).toBe('abcdef')
    },
    onEnd: () => {},
    onBroken: (error) => expect.fail(error.message),
  })
  const bytes = bytesOf(`${chunked}1\r\na\r\n4\r\nbcde\r\n1\r\nf\r\n0\r\n\r\n`)
  reader.begin()
  reader.push(bytes, bytes.length)
  expect(times).toBe(1)
})

describe("beside Node's own client", () => {
  let server: Server
  /** What the server says to whoever connects. */
  let says: Buffer

  beforeAll(async () => {
    server = createTcpServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.end(says))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  })
  afterAll(() => new Promise((resolve) => server.close(resolve)))

  /** The same answer, as Node understands it; undefined where it refuses it. */
  function byNode(port: number): Promise<Pick<Told, 'status' | 'body'> | undefined> {
    return new Promise((resolve) => {
      const request = nodeRequest({ port, host: '127.0.0.1', method: 'POST', agent: false }, (response) => {
        let body = ''
        response.setEncoding('latin1').on('data', (chunk) => {
          body += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
        response.on('error', () => resolve(undefined))
      })
      request.on('upgrade', (_, socket) => {
        socket.destroy()
        resolve(undefined)
      })
      request.on('error', () => resolve(undefined))
      request.end()
    })
  }

  const portOf = (): number => (server.address() as AddressInfo).port

  test.each(good)('both read: $name', async ({ bytes, told }) => {
    says = bytesOf(bytes)
    const node = await byNode(portOf())
    // Node reads on behind the answer, and refuses it for what it finds there.
    if (told.isReusable !== false || node !== undefined) {
      const { status, body } = read([says], true)
      expect(node).toEqual({ status, body })
    }
  })

  /** Puts a piece in, takes some bytes out, or changes one, where answers are made of. */
  const pieces = ['\r\n', '\n', '\r', ' ', '\t', '\0', ':', ',', ';', '0', '1', 'a', '\r\n\r\n', '\x80']
  const lines = ['content-length: 3\r\n', 'transfer-encoding: chunked\r\n', 'connection: close\r\n', ' x\r\n', 'a: b\n']
  const change = fc.record({
    at: fc.nat(400),
    out: fc.integer({ min: 0, max: 3 }),
    put: fc.constantFrom('', ...pieces, ...lines),
  })
  const changed = fc
    .tuple(
      fc.constantFrom(...good.filter(({ bytes }) => bytes.length < 400)),
      fc.array(change, { minLength: 1, maxLength: 3 }),
    )
    .map(([{ bytes }, changes]) =>
      changes.reduce((text, { at, out, put }) => {
        const place = at % (text.length + 1)
        return text.slice(0, place) + put + text.slice(place + out)
      }, bytes),
    )

  test('of answers with faults, none is read that Node refuses, and none otherwise', async () => {
    await fc.assert(
      fc.asyncProperty(changed, async (text) => {
        says = bytesOf(text)
        const { end, status, body, isReusable } = read([says], true)
        if (end !== 'whole') return
        const node = await byNode(portOf())
        // What follows an answer costs the connection here, and the answer there.
        if (node !== undefined || isReusable) expect(node, JSON.stringify(text)).toEqual({ status, body })
      }),
      { numRuns: Number(process.env.TOLLGATE_TEST_RUNS ?? 300) },
    )
  })
})

describe("what Node's own server sends", () => {
  const answers: readonly (readonly [string, (response: ServerResponse) => void])[] = [
    ['counted', (response) => response.end('whole')],
    ['empty', (response) => response.end()],
    ['in chunks', (response) => response.write('a', () => response.end('b'.repeat(70_000)))],
    ['no content', (response) => response.writeHead(204).end()],
    ['not modified', (response) => response.writeHead(304, { etag: '"x"' }).end()],
    ['closed', (response) => response.writeHead(200, { connection: 'close' }).end('last')],
    ['fields of one name', (response) => response.writeHead(200, { 'set-cookie': ['a=1', 'b=2'] }).end('x')],
    [
      'with trailers',
      (response) => {
        response.writeHead(200, { trailer: 'x-sum' }).write('a')
        response.addTrailers({ 'x-sum': '7' })
        response.end()
      },
    ],
    [
      'after interim answers',
      (response) => {
        response.writeContinue()
        response.writeProcessing()
        response.writeEarlyHints({ link: '</style.css>; rel=preload' })
        response.end('x')
      },
    ],
    [
      'until the connection ends',
      (response) => {
        response.removeHeader('transfer-encoding')
        response.useChunkedEncodingByDefault = false
        response.write('a')
        response.end('b')
      },
    ],
  ]

  test.each(answers)('%s', async (_, answer) => {
    const server = createServer((request, response) => request.resume().on('end', () => answer(response)))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    try {
      // Recorded from a bare socket: where the server keeps the connection, the second request ends it.
      const parts: Buffer[] = []
      const socket = connect(port, '127.0.0.1').on('data', (part) => parts.push(part))
      socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n')
      const over = new Promise((resolve) => socket.once('close', resolve))
      socket.end()
      await over
      const bytes = Buffer.concat(parts)
      const told = everyWay(bytes, true)
      const node = await new Promise<Partial<Told>>((resolve, reject) => {
        nodeRequest({ port, host: '127.0.0.1', method: 'POST', agent: false }, (response) => {
          let body = ''
          response.setEncoding('latin1').on('data', (chunk) => {
            body += chunk
          })
          const { statusCode: status = 0, trailers } = response
          response.on('end', () => resolve({ status, body, trailers: response.trailers ?? trailers }))
        })
          .on('error', reject)
          .end()
      })
      expect(told).toMatchObject({ end: 'whole', ...node })
    } finally {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })
})
