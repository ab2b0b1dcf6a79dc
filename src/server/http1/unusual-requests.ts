/** Requests for tests: a simple one, and all that is not. */

/** Lines of the simplest request that has everything; its body is of five bytes. */
export const plain: readonly string[] = [
  'POST /v1/chat/completions?a=b HTTP/1.1',
  'Host: gate.example:3000',
  'X-Api-Key: tg_own',
  'content-type: application/json',
  'content-length: 5',
]

const [line = ''] = plain

/** The bytes of lines and body, a byte for each character. */
export function request(lines: readonly string[], body = ''): Buffer {
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1')
}

/** {@link plain} with other lines in the place of its last one, and a body. */
function withLine(last: string): Buffer {
  return request([...plain.slice(0, -1), last], '{"a":')
}

/** Heads that are not simple: wrong, hostile, or only unusual. */
export const unusualRequests: readonly (readonly [what: string, bytes: Buffer])[] = [
  ['two lengths', withLine('content-length: 5\r\ncontent-length: 5')],
  ['two lengths that differ', withLine('content-length: 5\r\nContent-Length: 6')],
  ['a list of lengths', withLine('content-length: 5, 5')],
  ['a length with a sign', withLine('content-length: +5')],
  ['a negative length', withLine('content-length: -1')],
  ['a length with a zero before it', withLine('content-length: 05')],
  ['a length in hexadecimal', withLine('content-length: 0x5')],
  ['a length with a fraction', withLine('content-length: 5.0')],
  ['no length where one should be', withLine('content-length:')],
  ['a length with a blank in it', withLine('content-length: 1 0')],
  ['a length of many digits', withLine('content-length: 18446744073709551621')],
  ['chunks', withLine('transfer-encoding: chunked')],
  ['chunks and a length', withLine('transfer-encoding: chunked\r\ncontent-length: 5')],
  ['an unknown coding', withLine('Transfer-Encoding: xchunked')],
  ['trailers', withLine('trailer: x')],
  ['an upgrade', withLine('connection: upgrade\r\nupgrade: h2c')],
  ['an upgrade that the connection does not name', withLine('upgrade: websocket')],
  ['settings of HTTP/2', withLine('http2-settings: AAMAAABk')],
  ['an expectation', withLine('expect: 100-continue')],
  ['a list of connection options', withLine('connection: keep-alive, te')],
  ['a connection of a proxy', withLine('proxy-connection: close')],
  ['two hosts', withLine('host: y')],
  ['a name twice', withLine('a: 1\r\nA: 2')],
  ['a cookie to set', withLine('set-cookie: a=b')],
  ['the name of a prototype', withLine('__proto__: x')],
  ['no host', request([line, 'content-length: 0'])],
  ['a folded line', withLine('a: 1\r\n b: 2')],
  ['a line that is folded by a tab', withLine('a: 1\r\n\tb: 2')],
  ['a line without a colon', withLine('a')],
  ['a line without a name', withLine(': a')],
  ['a blank before the colon', withLine('content-length : 5')],
  ['a tab before the colon', withLine('content-length\t: 5')],
  ['a blank before a name', request([line, ' host: x'])],
  ['a tab in a value', withLine('a: b\tc')],
  ['a tab behind the colon', withLine('content-length:\t5')],
  ['a NUL in a value', withLine('a: b\0c')],
  ['a NUL in a name', withLine('a\0b: c')],
  ['DEL in a value', withLine('a: b\x7fc')],
  ['a letter with an accent in a name', withLine('é: b')],
  ['a bracket in a name', withLine('a(b): c')],
  ['LF at the end of a line', withLine('a: b\nc: d')],
  ['CR in a value', withLine('a: b\rc')],
  ['CR CR LF at the end of a line', withLine('a: b\r')],
  ['LF before the empty line', Buffer.from(`${line}\r\nhost: x\n\r\n\r\n`)],
  ['HTTP/1.0', request(['GET / HTTP/1.0', 'host: x'])],
  ['HTTP/1.2', request(['GET / HTTP/1.2', 'host: x'])],
  ['HTTP/2', request(['PRI * HTTP/2.0', 'host: x'])],
  ['a version in small letters', request(['GET / http/1.1', 'host: x'])],
  ['something behind the version', request(['GET / HTTP/1.1 ', 'host: x'])],
  ['no version', request(['GET /', 'host: x'])],
  ['two blanks in the first line', request(['GET  / HTTP/1.1', 'host: x'])],
  ['a blank in the path', request(['GET /a b HTTP/1.1', 'host: x'])],
  ['a tab in the first line', request(['GET\t/ HTTP/1.1', 'host: x'])],
  ['a fragment', request(['GET /#a HTTP/1.1', 'host: x'])],
  ['a letter with an accent in the path', request(['GET /é HTTP/1.1', 'host: x'])],
  ['a URL with its host', request(['GET http://x/ HTTP/1.1', 'host: x'])],
  ['an asterisk', request(['OPTIONS * HTTP/1.1', 'host: x'])],
  ['CONNECT', request(['CONNECT x:80 HTTP/1.1', 'host: x'])],
  ['a method that nobody knows', request(['GETS / HTTP/1.1', 'host: x'])],
  ['a method in small letters', request(['get / HTTP/1.1', 'host: x'])],
  ['an empty line before it', request(['', 'GET / HTTP/1.1', 'host: x'])],
  ['a blank before it', request([' GET / HTTP/1.1', 'host: x'])],
  ['a head of more than 8 KiB', withLine(`a: ${'b'.repeat(8_192)}`)],
  ['8 KiB that do not end', Buffer.from(`${line}\r\na: ${'b'.repeat(8_192)}`)],
  ['TLS', Buffer.from([22, 3, 1, 2, 0, 1, 0])],
]
