import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ConnectionError } from './error-codes.ts'
import { block } from './fixture.ts'
import { HeaderBlocks } from './header-blocks.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import { huffmanDecoded, huffmanEncoded } from './hpack-huffman.ts'
import { staticLength } from './hpack-static.ts'

function decoded(decoder: HpackDecoder, hex: string, maxBytes = 65_536): string[] | undefined {
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
  return decoder.decode(bytes, 0, bytes.length, maxBytes)
}

const request = [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'www.example.com']
const secure = [':method', 'GET', ':scheme', 'https', ':path', '/index.html', ':authority', 'www.example.com']
const found = [
  'cache-control',
  'private',
  'date',
  'Mon, 21 Oct 2013 20:13:21 GMT',
  'location',
  'https://www.example.com',
]
const cookie = 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'
/** Their table holds 256 bytes: that is said first. */
const smallTable = '3fe101'

describe.each([
  [
    'C.3, requests without Huffman',
    [
      ['828684410f7777772e6578616d706c652e636f6d', request],
      ['828684be58086e6f2d6361636865', [...request, 'cache-control', 'no-cache']],
      ['828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565', [...secure, 'custom-key', 'custom-value']],
    ],
  ],
  [
    'C.4, requests with Huffman',
    [
      ['828684418cf1e3c2e5f23a6ba0ab90f4ff', request],
      ['828684be5886a8eb10649cbf', [...request, 'cache-control', 'no-cache']],
      ['828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf', [...secure, 'custom-key', 'custom-value']],
    ],
  ],
  [
    'C.6, answers with Huffman and a table that overflows',
    [
      [
        `${smallTable} 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3`,
        [':status', '302', ...found],
      ],
      ['4883640effc1c0bf', [':status', '307', ...found]],
      [
        `88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007`,
        [
          ...[':status', '200', 'cache-control', 'private', 'date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
          ...['location', 'https://www.example.com', 'content-encoding', 'gzip', 'set-cookie', cookie],
        ],
      ],
    ],
  ],
] as const)('the examples of RFC 7541, %s', (_, blocks) => {
  test('say what the RFC says they do', () => {
    const decoder = new HpackDecoder()
    for (const [hex, fields] of blocks) expect(decoded(decoder, hex)).toEqual(fields)
  })
})

test('the static table has its 61 entries', () => {
  expect(staticLength).toBe(61)
  expect(decoded(new HpackDecoder(), '81 88 8f bd')).toEqual([
    ...[':authority', '', ':status', '200', 'accept-charset', '', 'www-authenticate', ''],
  ])
})

const latin1 = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) })

test('any text comes back from the Huffman code', () => {
  fc.assert(
    fc.property(latin1, (text) => {
      const bytes = huffmanEncoded(text)
      expect(huffmanDecoded(bytes, 0, bytes.length)).toBe(text)
    }),
  )
})

const name = fc.oneof(
  fc.constantFrom('content-type', 'grpc-status', ':status', 'date', 'x-request-id', 'location'),
  fc.stringMatching(/^[a-z0-9-]{1,40}$/),
)
const value = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  maxLength: 300,
})

test('what is written is read, again and again', () => {
  const decoder = new HpackDecoder()
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value)), (fields) => {
      const bytes = block(fields)
      expect(decoder.decode(bytes, 0, bytes.length, 1_000_000)).toEqual(fields.flat())
    }),
  )
})

test('what may not be in a header does not get into one', () => {
  const written = (text: string) => {
    const bytes = block([['a', text]])
    return new HpackDecoder().decode(bytes, 0, bytes.length, 65_536)?.[1]
  }
  expect(written('a\r\nb\0é\u010a\t')).toBe('a??b?é?\t')
  expect(written(`${'x'.repeat(100)}\r\n\u010d`)).toBe(`${'x'.repeat(100)}???`)
})

test('any bytes are read or refused, and the table stays within its 4096 bytes', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (blocks) => {
      const decoder = new HpackDecoder()
      try {
        for (const bytes of blocks) decoder.decode(Buffer.from(bytes), 0, bytes.length, 65_536)
      } catch (error) {
        expect(error).toBeInstanceOf(ConnectionError)
      }
    }),
    { numRuns: 1000 },
  )
})

test('a field that does not fit into the table empties it, and evicted ones are not found', () => {
  const decoder = new HpackDecoder()
  const long = 'x'.repeat(100)
  const bytes = Buffer.concat([Buffer.from([0x40, 1, 0x61, 100]), Buffer.from(long)])
  // 133 bytes each with their 32: thirty of them fit.
  for (let at = 0; at < 40; at++) decoder.decode(bytes, 0, bytes.length, 65_536)
  expect(decoded(decoder, (61 + 128 + 30).toString(16).padStart(2, '0'))).toEqual(['a', long])
  expect(() => decoded(decoder, (61 + 128 + 31).toString(16))).toThrow('an index is not in the tables')
  expect(decoded(decoder, '20')).toEqual([])
  expect(() => decoded(decoder, 'be')).toThrow('an index is not in the tables')
})

test('a list that is too large is not kept, and what it put into the table is', () => {
  const decoder = new HpackDecoder()
  expect(decoded(decoder, '40016101624001630164', 40)).toBeUndefined()
  expect(decoded(decoder, 'bebf')).toEqual(['c', 'd', 'a', 'b'])
})

test('the same bytes mean something else once the table changed', () => {
  const blocks = new HeaderBlocks()
  const head = (bytes: Buffer) => {
    const read = blocks.head(bytes, 0, bytes.length)
    return typeof read === 'string' ? read : read.path
  }
  const put = (path: string) =>
    Buffer.concat([Buffer.from([0x83, 0x86, 0x41, 1, 0x61, 0x44, path.length]), Buffer.from(path)])
  expect(head(put('/one'))).toBe('/one')
  const again = Buffer.from([0x83, 0x86, 0xbf, 0xbe])
  expect(head(again)).toBe('/one')
  expect(blocks.head(again, 0, 4)).toBe(blocks.head(again, 0, 4))
  expect(head(put('/two'))).toBe('/two')
  expect(head(again)).toBe('/two')
})
