import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { startFixture } from './fixture.ts'

async function firstLineOf(port: number, sent: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  const text = await new Promise<string>((resolve, reject) => {
    let received = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      received += chunk
    })
    socket.on('close', () => resolve(received))
    socket.on('error', reject)
    socket.write(sent)
  })
  return text.split('\r\n', 1)[0] ?? ''
}

test.each([
  ['a head that does not end in time', 'GET /health HTTP/1.1\r\nhost: a\r\n', 'HTTP/1.1 408 Request Timeout'],
  [
    'a head without an end',
    `GET /health HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n`,
    'HTTP/1.1 431 Request Header Fields Too Large',
  ],
  ['what is not HTTP', 'hello\r\n\r\n', 'HTTP/1.1 400 Bad Request'],
])('%s is told so, and its connection closed', async (_what, sent, expected) => {
  const fixture = await startFixture({ headersTimeoutMs: 300 })
  try {
    expect(await firstLineOf(fixture.server.port, sent)).toBe(expected)
  } finally {
    await fixture.close()
  }
})
