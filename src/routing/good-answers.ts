import { many, type Told } from './fixture-answers.ts'

export interface GoodAnswer {
  readonly name: string
  readonly bytes: string
  /** The connection ends behind it. */
  readonly isEnded?: boolean
  readonly told: Partial<Told>
}

/** Answers that a backend may give, and what is told of them. */
export const goodAnswers: readonly GoodAnswer[] = [
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
