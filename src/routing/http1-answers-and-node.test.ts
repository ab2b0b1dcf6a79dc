import { createServer, request as nodeRequest, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer, type Server } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bytesOf, everyWay, read, type Told } from './fixture-answers.ts'
import { goodAnswers } from './good-answers.ts'

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

  test.each(goodAnswers)('both read: $name', async ({ bytes, told }) => {
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
      fc.constantFrom(...goodAnswers.filter(({ bytes }) => bytes.length < 400)),
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
