import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import { noBytes } from '../exchange.ts'
import { until } from '../fixture.ts'
import { type OpenedConnection, openConnection, post } from './fixture.ts'
import { request } from './unusual-requests.ts'

let opened: OpenedConnection
beforeEach(async () => {
  opened = await openConnection()
})
afterEach(() => opened.close())

const kept = 'Date: *\r\nConnection: keep-alive\r\nKeep-Alive: timeout=30\r\n'

/** Without the moment. */
function told(chunk: string | undefined): string | undefined {
  return chunk?.replace(/(?<=\r\nDate: ).*(?= GMT\r\n)/, '*').replace('* GMT', '*')
}

/** Another piece of an answer. */
async function next(chunks: string[]): Promise<string | undefined> {
  await until(() => chunks.length > 0)
  return told(chunks.shift())
}

describe('an answer', () => {
  test('leaves as one piece, head and body', async () => {
    const chunks = opened.received()
    for (const length of [0, 3, 4_000]) {
      await opened.send(post('1'))
      opened.last().setHeader('vary', 'origin')
      opened.answer('x'.repeat(length), ['content-type', 'text/plain'])
      expect(opened.last().left()).toBeUndefined()
      const head = `HTTP/1.1 200 OK\r\nvary: origin\r\ncontent-type: text/plain\r\ncontent-length: ${length}\r\n${kept}\r\n`
      expect(await next(chunks)).toBe(head + 'x'.repeat(length))
    }
  })

  test('that its caller does not read yet stays what it is while others are answered', async () => {
    const other = await openConnection()
    onTestFinished(() => other.close())
    const { socket } = opened.connection
    await opened.send(post('1'))
    opened.last().head(200, new AnswerHeaders(), false)
    let written = 0
    while (socket.writableLength === 0) {
      opened.last().write(Buffer.alloc(30_000, 'a'))
      written += 30_000
    }
    const others = other.received()
    await other.send(post('1'))
    other.answer('b'.repeat(30_000))
    const chunks = opened.received()
    opened.last().end(noBytes)
    await until(() => chunks.join('').endsWith('\r\n0\r\n\r\n') && others.join('').endsWith('b'.repeat(30_000)))
    const body = chunks
      .join('')
      .split('\r\n\r\n')
      .slice(1)
      .join('')
      .replaceAll(/7530\r\n|\r\n0?/g, '')
    expect(body === 'a'.repeat(written)).toBe(true)
  })

  test('of parts leaves in chunks, the first one with its head, the end with the last one', async () => {
    const chunks = opened.received()
    await opened.send(post('1'))
    opened.last().head(200, new AnswerHeaders(['a', 'b']), false)
    opened.last().write(Buffer.from('x'.repeat(26)))
    expect(await next(chunks)).toBe(
      `HTTP/1.1 200 OK\r\na: b\r\n${kept}Transfer-Encoding: chunked\r\n\r\n1a\r\n${'x'.repeat(26)}\r\n`,
    )
    opened.last().write(new Uint8Array(0))
    opened.last().write(Buffer.from('two'))
    expect(await next(chunks)).toBe('3\r\ntwo\r\n')
    opened.last().end(Buffer.from('three'))
    expect(await next(chunks)).toBe('5\r\nthree\r\n0\r\n\r\n')
    await opened.send(post('2'))
    expect(opened.handled.length).toBe(2)
  })

  test.each<[what: string, method: string, status: number, bytes: string, trailers: boolean, expected: string]>([
    ['nothing', 'POST', 200, '', false, `${kept}Content-Length: 0\r\n\r\n`],
    ['one part', 'POST', 200, 'ab', false, `${kept}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n`],
    ['trailers', 'POST', 200, '', true, `${kept}Transfer-Encoding: chunked\r\n\r\n0\r\nc: d\r\n\r\n`],
    [
      'a part and trailers',
      'POST',
      200,
      'ab',
      true,
      `${kept}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nc: d\r\n\r\n`,
    ],
    ['no content', 'POST', 204, '', false, `${kept}\r\n`],
    ['a body where none can be', 'POST', 304, 'ab', false, `${kept}\r\n`],
    ['a head only', 'HEAD', 200, 'ab', true, `${kept}\r\n`],
  ])('of %s ends where it says', async (_, method, status, bytes, hasTrailers, expected) => {
    const chunks = opened.received()
    await opened.send(request([`${method} / HTTP/1.1`, 'host: x']))
    opened.last().head(status, new AnswerHeaders(), hasTrailers)
    opened.last().end(Buffer.from(bytes), hasTrailers ? { c: 'd' } : undefined)
    expect((await next(chunks))?.replace(/^HTTP\/1.1 .*\r\n/, '')).toBe(expected)
    await opened.send(post('2'))
    expect(opened.handled.length).toBe(2)
  })

  test.each([
    ['the caller asked for it', 'Date: *\r\nConnection: close\r\n', ['connection: close']],
    ['the server is leaving', 'connection: close\r\nDate: *\r\n', []],
  ])('is the last one when %s', async (_, lines, more) => {
    const chunks = opened.received()
    await opened.send(post('1', more))
    opened.isLeaving = more.length === 0
    opened.last().head(204, new AnswerHeaders(), false)
    opened.last().end(new Uint8Array(0))
    expect(await next(chunks)).toBe(`HTTP/1.1 204 No Content\r\n${lines}\r\n`)
    opened.caller.write(post('2'))
    await until(() => opened.closed === 1)
    expect(opened.handled.length).toBe(1)
  })

  test('that its caller does not read is not out, and nothing is handled before it is', async () => {
    const bytes = Buffer.alloc(20_000_000, 'x')
    opened.caller.pause()
    await opened.send(post('1'))
    await opened.send(post('2'))
    opened.answer(bytes)
    let isOut = false
    const left = opened
      .last()
      .left()
      ?.then(() => {
        isOut = true
      })
    await new Promise((resolve) => setImmediate(resolve))
    expect([isOut, opened.handled.length]).toEqual([false, 1])
    let length = 0
    opened.caller.on('data', (chunk: Buffer) => {
      length += chunk.length
    })
    opened.caller.resume()
    await left
    expect(opened.handled.length).toBe(2)
    await until(() => length > bytes.length)
  })

  test('whose caller leaves before it is out is over, and nothing follows', async () => {
    let hasLeft = false
    opened.caller.pause()
    await opened.send(post('1'))
    await opened.send(post('2'))
    opened.last().onLeft(() => {
      hasLeft = true
    })
    opened.answer(Buffer.alloc(20_000_000))
    const left = opened.last().left()
    opened.caller.destroy()
    await left
    await until(() => opened.closed === 1)
    for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    expect([hasLeft, opened.handled.length, opened.handedOver.length]).toEqual([false, 1, 0])
  })

  test('of parts is full while its caller does not read', async () => {
    opened.caller.pause()
    await opened.send(post('1'))
    opened.last().head(200, new AnswerHeaders(), false)
    while (!opened.last().isFull) opened.last().write(Buffer.alloc(100_000))
    const draining = opened.last().drained()
    opened.caller.resume()
    await draining
    expect(opened.last().isFull).toBe(false)
    opened.caller.pause()
    while (!opened.last().isFull) opened.last().write(Buffer.alloc(100_000))
    const leaving = opened.last().drained()
    opened.caller.destroy()
    await leaving
    await until(() => opened.last().isGone)
    expect(opened.last().isFull).toBe(false)
  })

  test('of parts is as it was handed over, however late its caller reads it', async () => {
    opened.caller.pause()
    await opened.send(post('1'))
    opened.last().head(200, new AnswerHeaders(['content-length', '100000000']), false)
    const parts: string[] = []
    for (let part = 0; !opened.last().isFull || part % 50 > 0; part += 1) {
      parts.push(String(part % 10).repeat(20_000))
      opened.last().write(Buffer.from(parts[part] ?? ''))
    }
    const chunks = opened.received()
    opened.caller.resume()
    await until(() => chunks.join('').length > parts.join('').length)
    expect(chunks.join('').endsWith(`\r\n\r\n${parts.join('')}`)).toBe(true)
  })

  test('can be cut until it is out', async () => {
    await opened.send(post('1'))
    const [first] = opened.handled
    opened.answer('one')
    first?.cut()
    expect(opened.connection.socket.destroyed).toBe(false)
    await opened.send(post('2'))
    opened.last().cut()
    await until(() => opened.closed === 1)
    expect(opened.connection.socket.destroyed).toBe(true)
  })

  test.each(['a\r\nb: c', 'a\nb', 'a\rb', 'a\0', 'a\x7f', '…'])('does not leave with the value %j', async (hostile) => {
    const chunks = opened.received()
    await opened.send(post('1'))
    expect(() => opened.answer('one', ['a', hostile])).toThrow('the answer cannot have this value in its header a')
    opened.last().head(200, new AnswerHeaders(), true)
    expect(() => opened.last().end(new Uint8Array(0), { a: hostile })).toThrow('the answer cannot have this value')
    expect(chunks).toEqual([])
  })

  test.each(['', 'a b', 'a:', 'a\r\nb', 'é'])('does not leave with the name %j', async (hostile) => {
    await opened.send(post('1'))
    expect(() => opened.answer('one', [hostile, 'a'])).toThrow('the answer cannot have')
    expect(() => opened.answer('one', [hostile, 'a'])).toThrow('the answer cannot have')
  })
})
