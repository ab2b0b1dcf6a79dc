import { afterAll, beforeAll, expect, test } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import { errorCodes } from './error-codes.ts'
import { block, frame, goodFields, type Http2Fixture, number, open, RawPeer, serveHttp2, setting } from './fixture.ts'
import { flags, frameTypes, preface } from './frames.ts'

/** What a peer may send against the rules, and what it is told: an error of its stream, or one of the connection. */

const { data, headers, priority, rstStream, settings, pushPromise, ping, goAway, windowUpdate, continuation } =
  frameTypes
const { endStream, endHeaders, padded } = flags
const { protocolError, flowControlError, streamClosed, frameSizeError, compressionError, enhanceYourCalm } = errorCodes

let fixture: Http2Fixture
beforeAll(async () => {
  fixture = await serveHttp2((exchange) => {
    if (exchange.path === '/answered') {
      exchange.head(200, new AnswerHeaders(), false)
      exchange.end(Buffer.from('ok'))
    }
  }, 10)
})
afterAll(() => fixture.close())

const good = block(goodFields)
const asked = (fields: readonly (readonly [string, string])[]) =>
  frame(headers, endHeaders | endStream, 1, block(fields))
const without = (name: string) => goodFields.filter(([each]) => each !== name)
const and = (...more: readonly (readonly [string, string])[]) => [...goodFields, ...more]
const answered = goodFields.map(([name, value]) =>
  name === ':path' ? ([name, '/answered'] as const) : ([name, value] as const),
)
const raw = (name: string, value: string) =>
  Buffer.concat([
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value, 'latin1'),
  ])

const ofConnection: [string, number, Buffer][] = [
  ['DATA of no stream', protocolError, frame(data, 0, 0, Buffer.from('x'))],
  ['DATA of a stream that was not begun', protocolError, frame(data, 0, 1, Buffer.from('x'))],
  ['DATA of a stream that only a server could begin', protocolError, frame(data, 0, 2, Buffer.from('x'))],
  [
    'DATA that is nothing but padding',
    protocolError,
    Buffer.concat([open(1), frame(data, padded, 1, Buffer.from([1]))]),
  ],
  ['padded DATA without a length', protocolError, Buffer.concat([open(1), frame(data, padded, 1)])],
  ['HEADERS of no stream', protocolError, open(0)],
  ['HEADERS with an even number', protocolError, open(2)],
  ['HEADERS with too long a padding', protocolError, frame(headers, endHeaders | padded, 1, Buffer.from([9, 0x82]))],
  [
    'HEADERS cut within their priority',
    frameSizeError,
    frame(headers, endHeaders | flags.priority, 1, Buffer.from([0, 0])),
  ],
  ['HEADERS of a lower number than the last', streamClosed, Buffer.concat([open(5), open(3)])],
  [
    'HEADERS of a stream that its peer reset',
    streamClosed,
    Buffer.concat([open(1), frame(rstStream, 0, 1, number(8)), open(1)]),
  ],
  [
    'another frame within a header block',
    protocolError,
    Buffer.concat([frame(headers, 0, 1, good), frame(ping, 0, 0, Buffer.alloc(8))]),
  ],
  [
    'an unknown frame within a header block',
    protocolError,
    Buffer.concat([frame(headers, 0, 1, good), frame(0xfa, 0, 0)]),
  ],
  [
    'a CONTINUATION of another stream',
    protocolError,
    Buffer.concat([frame(headers, 0, 1, good), frame(continuation, endHeaders, 3)]),
  ],
  ['a CONTINUATION of nothing', protocolError, frame(continuation, endHeaders, 1, good)],
  ['an index beyond the tables', compressionError, frame(headers, endHeaders, 1, Buffer.from([0xff, 0x00]))],
  ['the index 0', compressionError, frame(headers, endHeaders, 1, Buffer.from([0x80]))],
  [
    'a number without an end',
    compressionError,
    frame(headers, endHeaders, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
  ],
  ['a string longer than its block', compressionError, frame(headers, endHeaders, 1, Buffer.from([0x00, 0x05, 0x61]))],
  [
    'a Huffman code that ends in zeros',
    compressionError,
    frame(headers, endHeaders, 1, Buffer.from([0x00, 0x81, 0x00, 0x00])),
  ],
  [
    'a Huffman code with an end of string in it',
    compressionError,
    frame(headers, endHeaders, 1, Buffer.from([0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00])),
  ],
  [
    'a dynamic table of more than 4096 bytes',
    compressionError,
    frame(headers, endHeaders, 1, Buffer.concat([Buffer.from([0x3f, 0xe2, 0x1f]), good])),
  ],
  [
    'a change of the table size after a field',
    compressionError,
    frame(headers, endHeaders, 1, Buffer.from([0x83, 0x20])),
  ],
  ['PRIORITY of no stream', protocolError, frame(priority, 0, 0, Buffer.alloc(5))],
  ['PRIORITY of a stream on itself', protocolError, frame(priority, 0, 7, Buffer.from([0, 0, 0, 7, 1]))],
  ['RST_STREAM of no stream', protocolError, frame(rstStream, 0, 0, number(8))],
  ['RST_STREAM of a stream that was not begun', protocolError, frame(rstStream, 0, 1, number(8))],
  ['RST_STREAM of a wrong length', frameSizeError, Buffer.concat([open(1), frame(rstStream, 0, 1, Buffer.alloc(3))])],
  ['SETTINGS of a stream', protocolError, frame(settings, 0, 1)],
  ['SETTINGS that are cut', frameSizeError, frame(settings, 0, 0, Buffer.alloc(5))],
  ['an answer to SETTINGS that says something', frameSizeError, frame(settings, flags.ack, 0, setting(4, 1))],
  ['SETTINGS_ENABLE_PUSH of 2', protocolError, frame(settings, 0, 0, setting(2, 2))],
  ['SETTINGS_INITIAL_WINDOW_SIZE of 2^31', flowControlError, frame(settings, 0, 0, setting(4, 2 ** 31))],
  ['SETTINGS_MAX_FRAME_SIZE of 16383', protocolError, frame(settings, 0, 0, setting(5, 16_383))],
  ['SETTINGS_MAX_FRAME_SIZE of 2^24', protocolError, frame(settings, 0, 0, setting(5, 2 ** 24))],
  [
    'a window that SETTINGS make too large',
    flowControlError,
    Buffer.concat([
      open(1),
      frame(windowUpdate, 0, 1, number(2 ** 31 - 1 - 65_535)),
      frame(settings, 0, 0, setting(4, 65_536)),
    ]),
  ],
  [
    'PUSH_PROMISE',
    protocolError,
    Buffer.concat([open(1), frame(pushPromise, endHeaders, 1, Buffer.concat([number(2), good]))]),
  ],
  ['PING of a stream', protocolError, frame(ping, 0, 1, Buffer.alloc(8))],
  ['PING of a wrong length', frameSizeError, frame(ping, 0, 0, Buffer.alloc(7))],
  ['GOAWAY of a stream', protocolError, frame(goAway, 0, 1, Buffer.alloc(8))],
  ['GOAWAY of a wrong length', frameSizeError, frame(goAway, 0, 0, Buffer.alloc(7))],
  ['WINDOW_UPDATE of nothing', protocolError, frame(windowUpdate, 0, 0, number(0))],
  ['WINDOW_UPDATE of a wrong length', frameSizeError, frame(windowUpdate, 0, 0, Buffer.alloc(3))],
  ['WINDOW_UPDATE of a stream that was not begun', protocolError, frame(windowUpdate, 0, 1, number(1))],
  ['more room on the connection than there can be', flowControlError, frame(windowUpdate, 0, 0, number(2 ** 31 - 1))],
  ['a frame of 16385 bytes', frameSizeError, frame(0xfa, 0, 0, Buffer.alloc(16_385))],
  [
    'more than there is room for on the connection',
    flowControlError,
    Buffer.concat(
      Array.from({ length: 9 }, (_, stream) => [
        open(2 * stream + 1),
        ...Array.from({ length: 60 }, () => frame(data, 0, 2 * stream + 1, Buffer.alloc(16_384))),
      ]).flat(),
    ),
  ],
]

test.each(ofConnection)('%s ends the connection with its code', async (_, code, sent) => {
  const peer = new RawPeer(fixture.port)
  peer.send(sent)
  await peer.until(() => false)
  expect(peer.goneWith).toBe(code)
})

test.each([
  ['another preface', Buffer.from('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n')],
  ['no SETTINGS', Buffer.concat([preface, open(1)])],
  ['an answer to SETTINGS', Buffer.concat([preface, frame(settings, flags.ack, 0)])],
])('a connection that begins with %s ends with PROTOCOL_ERROR', async (_, begin) => {
  const peer = new RawPeer(fixture.port, begin)
  await peer.until(() => false)
  expect(peer.goneWith).toBe(protocolError)
})

const ofStream: [string, number, Buffer][] = [
  ['DATA after the end', streamClosed, Buffer.concat([open(1, endStream), frame(data, 0, 1, Buffer.from('x'))])],
  ['HEADERS after the end', streamClosed, Buffer.concat([open(1, endStream), open(1, endStream)])],
  [
    'DATA of a stream that both ended',
    streamClosed,
    Buffer.concat([asked(answered), frame(data, 0, 1, Buffer.from('x'))]),
  ],
  ['trailers that do not end', protocolError, Buffer.concat([open(1), frame(headers, endHeaders, 1, raw('a', 'b'))])],
  [
    'trailers with a pseudo-header',
    protocolError,
    Buffer.concat([open(1), frame(headers, endHeaders | endStream, 1, raw(':path', '/'))]),
  ],
  [
    'HEADERS that depend on themselves',
    protocolError,
    frame(headers, endHeaders | flags.priority, 1, Buffer.concat([number(1), Buffer.from([0]), good])),
  ],
  ['PRIORITY of a wrong length', frameSizeError, Buffer.concat([open(1), frame(priority, 0, 1, Buffer.alloc(4))])],
  ['WINDOW_UPDATE of nothing', protocolError, Buffer.concat([open(1), frame(windowUpdate, 0, 1, number(0))])],
  [
    'more room than there can be',
    flowControlError,
    Buffer.concat([open(1), frame(windowUpdate, 0, 1, number(2 ** 31 - 1))]),
  ],
  [
    'more than there is room for',
    flowControlError,
    Buffer.concat([open(1), ...Array.from({ length: 65 }, () => frame(data, 0, 1, Buffer.alloc(16_384)))]),
  ],
  ['a name in upper case', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('Name', 'x')]))],
  ['an empty name', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('', 'x')]))],
  ['a name with a space', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('a b', 'x')]))],
  ['a line end in a value', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('a', 'x\r\ny')]))],
  ['a zero in a value', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('a', '\0')]))],
  ['a space before a value', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('a', ' x')]))],
  ['a space after a value', protocolError, frame(headers, endHeaders, 1, Buffer.concat([good, raw('a', 'x ')]))],
  ['an unknown pseudo-header', protocolError, asked([[':other', 'x'], ...goodFields])],
  ['a pseudo-header of answers', protocolError, asked([[':status', '200'], ...goodFields])],
  ['a pseudo-header after others', protocolError, asked([['a', 'b'], ...goodFields])],
  ['a pseudo-header twice', protocolError, asked([[':path', '/y'], ...goodFields])],
  ['no :method', protocolError, asked(without(':method'))],
  ['no :scheme', protocolError, asked(without(':scheme'))],
  ['no :path', protocolError, asked(without(':path'))],
  ['an empty :path', protocolError, asked([[':path', ''], ...without(':path')])],
  ['neither :authority nor host', protocolError, asked(without(':authority'))],
  ['connection', protocolError, asked(and(['connection', 'close']))],
  ['transfer-encoding', protocolError, asked(and(['transfer-encoding', 'chunked']))],
  ['te other than trailers', protocolError, asked(and(['te', 'gzip']))],
  ['host twice', protocolError, asked(and(['host', 'a'], ['host', 'b']))],
  ['content-length twice', protocolError, asked(and(['content-length', '0'], ['content-length', '0']))],
  ['a content-length that is no number', protocolError, asked(and(['content-length', '0x0']))],
  ['a content-length without a body', protocolError, asked(and(['content-length', '1']))],
  [
    'less than its content-length',
    protocolError,
    Buffer.concat([
      frame(headers, endHeaders, 1, block(and(['content-length', '2']))),
      frame(data, endStream, 1, Buffer.from('x')),
    ]),
  ],
  [
    'more than its content-length',
    protocolError,
    Buffer.concat([
      frame(headers, endHeaders, 1, block(and(['content-length', '2']))),
      frame(data, 0, 1, Buffer.from('xyz')),
    ]),
  ],
  [
    'headers of more than 32 KiB',
    enhanceYourCalm,
    asked(
      and(...Array.from({ length: 3 }, (_, at) => [`a${at}`, 'x'.repeat(5_000)] as const), ['b', 'é'.repeat(18_000)]),
    ),
  ],
]

test.each(ofStream)('%s ends a stream with its code, and the connection goes on', async (_, code, sent) => {
  const peer = new RawPeer(fixture.port)
  const parts = splitBlock(sent)
  peer.send(...parts)
  await peer.first(rstStream, 1)
  expect(peer.resetCode(1)).toBe(code)
  peer.send(frame(headers, endHeaders | endStream, 3, block(answered)))
  expect((await peer.first(data, 3))?.payload.toString()).toBe('ok')
  expect(peer.goneWith).toBeUndefined()
  peer.close()
})

/** A frame that is too long, as HEADERS and CONTINUATION. */
function splitBlock(sent: Buffer): readonly Buffer[] {
  const length = sent.readUIntBE(0, 3)
  if (length <= 16_384) return [sent]
  const payload = sent.subarray(9)
  const parts = [frame(headers, endStream, 1, payload.subarray(0, 16_384))]
  for (let at = 16_384; at < length; at += 16_384) {
    const isLast = at + 16_384 >= length
    parts.push(frame(continuation, isLast ? endHeaders : 0, 1, payload.subarray(at, at + 16_384)))
  }
  return parts
}

const fine: [string, Buffer][] = [
  [
    'unknown frames, settings and flags',
    Buffer.concat([
      frame(0xfa, 0xff, 1, Buffer.from('x')),
      frame(settings, 0, 0, setting(0xff, 5)),
      frame(ping, 0xfe, 0, Buffer.alloc(8)),
    ]),
  ],
  [
    'PRIORITY of any stream',
    Buffer.concat([frame(priority, 0, 1, Buffer.alloc(5)), frame(priority, 0, 101, Buffer.alloc(5))]),
  ],
  ['a reserved bit', frame(windowUpdate, 0, 0, Buffer.from([0x80, 0, 0, 1]))],
  [
    'RST_STREAM and WINDOW_UPDATE of a stream that is closed',
    Buffer.concat([
      open(1, endStream),
      frame(rstStream, 0, 1, number(8)),
      frame(rstStream, 0, 1, number(8)),
      frame(windowUpdate, 0, 1, number(1)),
    ]),
  ],
  [
    'what was under way when this side reset the stream',
    Buffer.concat([
      asked(without(':path')),
      frame(data, 0, 1, Buffer.from('x')),
      frame(headers, endHeaders | endStream, 1, raw('a', 'b')),
    ]),
  ],
]

test.each(fine)('%s is no fault', async (_, sent) => {
  const peer = new RawPeer(fixture.port)
  peer.send(sent, frame(headers, endHeaders | endStream, 7, block(answered)))
  expect((await peer.first(data, 7))?.payload.toString()).toBe('ok')
  expect(peer.goneWith).toBeUndefined()
  peer.close()
})
