import type { AddressInfo } from 'node:net'
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates, type TLSSocket } from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { createTestCa, selfSigned } from '../../test/support/test-ca.ts'
import { openBackend, type RawBackend, whole } from './fixture-backend.ts'
import { Http1Transport } from './http1-transport.ts'

let backend: RawBackend
beforeEach(async () => {
  backend = await openBackend()
})
afterEach(() => backend.close())

describe('over TLS', () => {
  const ca = createTestCa()
  const trusted = getCACertificates('default')
  let sockets: TLSSocket[]
  /** Asked for by clients. */
  let names: string[]

  async function secure({ cert, key }: { cert: string; key: string }, host = '127.0.0.1'): Promise<void> {
    sockets = []
    names = []
    const SNICallback = (name: string, callback: (error: null) => void): void => {
      names.push(name)
      callback(null)
    }
    const server = createTlsServer({ cert, key, SNICallback, ALPNProtocols: ['h2', 'http/1.1'] }, (socket) => {
      sockets.push(socket)
      backend.onConnection(socket)
    }).on('tlsClientError', () => {})
    const { port } = new URL(await backend.replace(server))
    backend.transport = new Http1Transport({
      origin: `https://${host}:${port}`,
      connectTimeoutMs: 5_000,
      maxConnections: 4,
    })
  }

  beforeEach(() => setDefaultCACertificates([...trusted, ca.cert]))
  afterEach(() => setDefaultCACertificates(trusted))

  test('a connection is kept, speaks HTTP/1.1, and spares the next one a handshake', async () => {
    await secure(ca.issue())
    for (let n = 0; n < 3; n += 1) expect(await backend.call().over).toBe('answer')
    expect(sockets).toHaveLength(1)
    backend.answer = (socket) => socket.write(whole('answer', 'connection: close\r\n'))
    await backend.call().over
    expect(await backend.call().over).toBe('answer')
    expect(sockets.map(({ alpnProtocol }) => alpnProtocol)).toEqual(['http/1.1', 'http/1.1'])
    expect(sockets[1]?.isSessionReused()).toBe(true)
    // An address is no name (RFC 6066 §3).
    expect(names).toEqual([])
  })

  test('large bodies pass both ways, and a reader makes the backend wait', async () => {
    await secure(ca.issue())
    const body = Buffer.concat([Buffer.from('body'), Buffer.alloc(3_000_000, 'y')])
    backend.answer = () => {}
    const told = backend.call({ body })
    await eventually(() => (backend.seen[0]?.text.length ?? 0) > 3_000_000)
    backend.seen[0]?.socket.write(whole('z'.repeat(3_000_000)))
    await eventually(() => told.body.length > 0)
    told.controller?.pause()
    told.controller?.resume()
    expect((await told.over).length).toBe(3_000_000)
    backend.answer = (socket) => socket.write(whole('answer'))
    expect(await backend.call().over).toBe('answer')
    expect(sockets).toHaveLength(1)
  })

  test('an end within the answer, and the end that is its own', async () => {
    await secure(ca.issue())
    backend.answer = (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')
    expect(await backend.call().over).toContain('the connection ended before')
    backend.answer = (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nanswer')
    expect(await backend.call().over).toBe('answer')
  })

  test('a backend that never ends its handshake costs no more than the wait for a connection', async () => {
    // It takes connections and says nothing.
    const { port } = backend.server.address() as AddressInfo
    backend.transport = new Http1Transport({
      origin: `https://127.0.0.1:${port}`,
      connectTimeoutMs: 40,
      maxConnections: 1,
    })
    const words = await Promise.all([backend.call().over, backend.call().over])
    expect(words).toEqual(Array(2).fill('no connection: no connection within 40 ms'))
  })

  test('a backend that nobody vouches for gets no request', async () => {
    await secure(selfSigned())
    expect(await backend.call().over).toMatch(/^no connection: self-signed certificate/)
    expect(backend.seen.map(({ text }) => text).join('')).toBe('')
  })

  test('a backend whose certificate is for another name gets no request, and is told the name', async () => {
    await secure(ca.issue(), 'localhost')
    expect(await backend.call().over).toMatch(/^no connection: .*does not match/)
    expect(names).toEqual(['localhost'])
    expect(backend.seen.map(({ text }) => text).join('')).toBe('')
  })
})
