import { describe, expect, test } from 'vitest'
import { bytesOf, chunked, everyWay, head, many, type Told } from './fixture-answers.ts'

interface Bad {
  readonly name: string
  readonly bytes: string
  readonly why: RegExp
  /** What came before it was seen. */
  readonly told?: Partial<Told>
}

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

describe('is refused, whole, byte by byte and however it is cut', () => {
  test.each(bad)('$name', ({ bytes, why, told = {} }) => {
    const broken = everyWay(bytesOf(bytes), false)
    expect(broken).toMatchObject({ end: 'broken', ...told })
    expect(broken.why).toMatch(/^The answer cannot be read: .*\.$/)
    expect(broken.why).toMatch(why)
  })
})
