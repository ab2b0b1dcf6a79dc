import { type AddressInfo, createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { openBackend, type RawBackend, whole } from './fixture-backend.ts'
import { Http1Transport } from './http1-transport.ts'
import type { TransportRequest } from './transport.ts'

let backend: RawBackend
beforeEach(async () => {
  backend = await openBackend()
})
afterEach(() => backend.close())

describe('a request', () => {
  test('goes out as it should stand on the wire', async () => {
    expect(await backend.call({ headers: { 'content-type': 'application/json', 'x-a': 'caf\xe9' } }).over).toBe(
      'answer',
    )
    const { port } = backend.server.address() as AddressInfo
    expect(backend.seen.map(({ text }) => text)).toEqual([
      `POST /path?a=b HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nconnection: keep-alive\r\n` +
        'content-type: application/json\r\nx-a: caf\xe9\r\ncontent-length: 4\r\n\r\nbody',
    ])
  })

  test('without a body says so', async () => {
    backend.answer = () => {}
    const told = backend.call({ body: Buffer.alloc(0) })
    await eventually(() => backend.seen[0]?.text.endsWith('content-length: 0\r\n\r\n'))
    backend.seen[0]?.socket.write(whole('answer'))
    expect(await told.over).toBe('answer')
  })

  test.each([[1_000], [65_536], [65_537], [4_000_000]])('with %i bytes more arrives whole', async (bytes) => {
    const body = Buffer.concat([Buffer.from('body'), Buffer.alloc(bytes, 'abc')])
    backend.answer = () => {}
    const told = backend.call({ body })
    await eventually(() => backend.seen[0]?.text.endsWith(`content-length: ${body.length}\r\n\r\n${body}`))
    backend.seen[0]?.socket.write(whole('answer'))
    expect(await told.over).toBe('answer')
  })

  test.each<[string, Partial<TransportRequest>]>([
    ['CRLF in a value', { headers: { a: 'b\r\nx: y' } }],
    ['LF in a value', { headers: { a: 'b\nx: y' } }],
    ['CR at the end of a value', { headers: { a: 'b\r' } }],
    ['NUL in a value', { headers: { a: 'b\0' } }],
    ['what Latin-1 would make CRLF of', { headers: { a: 'b\u010d\u010ax: y' } }],
    ['CRLF in a name', { headers: { 'a\r\nb': 'c' } }],
    ['a colon in a name', { headers: { 'a:b': 'c' } }],
    ['a blank in a name', { headers: { 'a ': 'c' } }],
    ['no name', { headers: { '': 'c' } }],
    ['a length of its own', { headers: { 'content-length': '1' } }],
    ['a coding', { headers: { 'transfer-encoding': 'chunked' } }],
    ['a host of its own', { headers: { host: 'elsewhere' } }],
    ['one in capitals', { headers: { Host: 'elsewhere' } }],
    ['a connection of its own', { headers: { connection: 'close' } }],
    ['CRLF in the path', { path: '/a\r\nb: c' }],
    ['a blank in the path', { path: '/a HTTP/1.1' }],
    ['a path that is none', { path: 'a' }],
  ])('with %s is not sent', async (_, changes) => {
    expect(await backend.call(changes).over).toMatch(/^no connection: .* (cannot have|of a request)/)
    expect(backend.seen).toEqual([])
  })

  test('to an IPv6 address names it in brackets', async () => {
    const origin = await backend.replace(createServer(backend.onConnection), '::1')
    backend.transport = new Http1Transport({ origin, connectTimeoutMs: 2_000, maxConnections: 1 })
    expect(await backend.call().over).toBe('answer')
    expect(backend.seen[0]?.text).toContain(`\r\nhost: ${origin.slice('http://'.length)}\r\n`)
  })
})
