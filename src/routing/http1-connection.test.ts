import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { openBackend, type RawBackend, whole } from './fixture-backend.ts'

let backend: RawBackend
beforeEach(async () => {
  backend = await openBackend()
})
afterEach(async () => {
  vi.useRealTimers()
  await backend.close()
})

describe('a connection', () => {
  const kept: readonly (readonly [string, string])[] = [
    ['a counted answer', whole('answer')],
    ['chunks', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\n\r\n'],
    ['an interim answer', `HTTP/1.1 103 Early Hints\r\n\r\n${whole('answer')}`],
    ['HTTP/1.0 that keeps it', `HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 6\r\n\r\nanswer`],
  ]

  test.each(kept)('is kept after %s', async (_, text) => {
    backend.answer = (socket) => socket.write(text)
    for (let n = 0; n < 3; n += 1) expect(await backend.call().over).toBe('answer')
    backend.answer = (socket) => {
      for (const char of text) socket.write(char)
    }
    for (let n = 0; n < 3; n += 1) expect(await backend.call().over).toBe('answer')
    expect(backend.seen).toHaveLength(1)
  })

  test.each([
    ['an answer that says so', whole('answer', 'connection: close\r\n')],
    ['an answer of HTTP/1.0', 'HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nanswer'],
    ['an answer with more behind it', `${whole('answer')}H`],
    ['a backend that keeps it for too short a time', whole('answer', 'keep-alive: timeout=2\r\n')],
  ])('is given up after %s', async (_, text) => {
    backend.answer = (socket) => socket.write(text)
    for (let n = 1; n <= 3; n += 1) {
      expect(await backend.call().over).toBe('answer')
      await eventually(() => backend.seen[n - 1]?.socket.destroyed)
      expect(backend.seen).toHaveLength(n)
    }
  })

  test.each([
    ['no answer', '{"error":"no"}\r\n\r\n', 'no status line'],
    ['two ways to read it', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n', 'has both'],
    ['a head without an end', `HTTP/1.1 200 OK\r\na: ${'b'.repeat(20_000)}`, 'more than 16384 bytes'],
    ['a broken chunk', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n', 'size of a chunk'],
  ])('that brings %s fails its call and is given up', async (_, text, why) => {
    backend.answer = (socket) => socket.write(text)
    const told = backend.call()
    expect(await told.over).toContain(why)
    expect(told.ends).toBe(1)
    await eventually(() => backend.seen[0]?.socket.destroyed)
    backend.answer = (socket) => socket.write(whole('answer'))
    expect(await backend.call().over).toBe('answer')
    expect(backend.seen).toHaveLength(2)
  })

  test('that ends within a counted answer fails its call', async () => {
    backend.answer = (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')
    expect(await backend.call().over).toContain('the connection ended before')
  })

  test('whose end is that of the answer ends it; a reset does not', async () => {
    const text = 'HTTP/1.1 200 OK\r\n\r\nanswer'
    backend.answer = (socket) => socket.end(text)
    expect(await backend.call().over).toBe('answer')
    backend.answer = (socket) => socket.write(text)
    const told = backend.call()
    await eventually(() => told.body === 'answer')
    backend.seen[1]?.socket.resetAndDestroy()
    expect(await told.over).toContain('ECONNRESET')
  })

  test('on which more comes while it is idle is given up: that is nobody’s answer', async () => {
    expect(await backend.call().over).toBe('answer')
    backend.seen[0]?.socket.write(whole('forged'))
    await eventually(() => backend.seen[0]?.socket.destroyed)
    expect(await backend.call().over).toBe('answer')
    expect(backend.seen).toHaveLength(2)
  })

  test.each<[string, (socket: Socket) => void]>([
    ['bytes that nobody asked for', (socket) => socket.write(whole('forged'))],
    ['the end', (socket) => socket.end()],
    ['a reset', (socket) => socket.resetAndDestroy()],
  ])('that has brought %s when a call wants it is passed over, and the call goes out on another', async (_, bring) => {
    expect(await backend.call().over).toBe('answer')
    for (let n = 0; n < 5; n += 1) {
      // Of a timer: the loop looks at its sockets before it comes to what was put off to the end of its turn.
      await delay(1)
      const last = backend.seen.at(-1)
      if (last !== undefined) bring(last.socket)
      const told = backend.call()
      expect(await told.over).toBe('answer')
      expect(told.ends).toBe(1)
    }
    for (const { text } of backend.seen) expect(text.match(/POST/g)).toHaveLength(1)
  })

  test('that fails when its request is out fails its call, which nobody sends again', async () => {
    expect(await backend.call().over).toBe('answer')
    backend.answer = (socket) => socket.destroy()
    expect(await backend.call().over).toMatch(/closed|ended/)
    expect(backend.seen).toHaveLength(1)
    expect(backend.seen[0]?.text.match(/POST/g)).toHaveLength(2)
  })

  test('whose answer comes before the request is out is given up', async () => {
    backend.server.removeAllListeners('connection')
    backend.server.on('connection', (socket) => {
      backend.seen.push({ socket, text: '' })
      socket.on('error', () => {})
      socket.once('data', () => socket.pause().write(whole('too large')))
    })
    const told = backend.call({ body: Buffer.alloc(64_000_000) })
    expect(await told.over).toBe('too large')
    expect(await backend.call().over).toBe('too large')
    expect(backend.seen).toHaveLength(2)
  })

  test('is kept while the backend says, less two seconds, and four seconds where it says nothing', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    for (const [fields, keptMs] of [
      ['keep-alive: timeout=60\r\n', 58_000],
      ['', 4_000],
      ['keep-alive: timeout=7200\r\n', 600_000],
    ] as const) {
      const before = backend.seen.length
      backend.answer = (socket) => socket.write(whole('answer', fields))
      await backend.call().over
      const connections = backend.seen.length
      expect(connections - before).toBeLessThanOrEqual(1)
      vi.advanceTimersByTime(keptMs - 1)
      await backend.call().over
      expect(backend.seen).toHaveLength(connections)
      vi.advanceTimersByTime(keptMs)
      await backend.call().over
      expect(backend.seen).toHaveLength(connections + 1)
    }
  })

  test('that its backend is about to close is not for the call that waits', async () => {
    backend.answer = (socket) => socket.write(whole('answer', 'keep-alive: timeout=2\r\n'))
    const calls = Array.from({ length: 8 }, () => backend.call())
    for (const { over } of calls) expect(await over).toBe('answer')
    for (const { text } of backend.seen) expect(text.match(/POST/g)).toHaveLength(1)
  })

  test('is closed with the others when its call is over, however long it would be kept', async () => {
    backend.answer = (socket) => socket.write(whole('answer', 'keep-alive: timeout=60\r\n'))
    await backend.call().over
    backend.answer = () => {}
    const running = backend.call()
    await eventually(() => backend.seen[0]?.text.match(/POST/g)?.length === 2)
    const closed = backend.transport.close()
    backend.seen[0]?.socket.write(whole('answer', 'keep-alive: timeout=60\r\n'))
    expect(await running.over).toBe('answer')
    await closed
    await eventually(() => backend.seen[0]?.socket.destroyed)
  })

  test('that was idle for long enough is closed, whether there is another call or not', async () => {
    backend.answer = (socket) => socket.write(whole('answer', 'keep-alive: timeout=3\r\n'))
    await backend.call().over
    await eventually(() => backend.seen[0]?.socket.destroyed)
  })
})

describe('a call', () => {
  test('that is aborted within its answer is told so once, and ends its connection', async () => {
    backend.answer = (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')
    const told = backend.call()
    await eventually(() => told.body === 'x')
    told.controller?.abort(new Error('gave up'))
    told.controller?.abort(new Error('once more'))
    expect(await told.over).toBe('gave up')
    await eventually(() => backend.seen[0]?.socket.destroyed)
    expect(told.ends).toBe(1)
  })

  test('that is aborted when it is about to go out leaves its connection to the next one', async () => {
    const told = backend.call({}, (controller) => controller.abort(new Error('too late')))
    expect(await told.over).toBe('too late')
    expect(await backend.call().over).toBe('answer')
    expect(backend.seen).toHaveLength(1)
    expect(backend.seen[0]?.text.match(/POST/g)).toHaveLength(1)
  })

  test('that is over has no say in the next one on its connection', async () => {
    const first = backend.call()
    await first.over
    backend.answer = (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nans')
    const second = backend.call()
    await eventually(() => second.body === 'ans')
    first.controller?.pause()
    first.controller?.abort(new Error('gave up'))
    backend.seen[0]?.socket.write('wer')
    expect(await second.over).toBe('answer')
  })

  test('makes the backend wait, gets everything then, and leaves a connection that is read', async () => {
    const part = Buffer.alloc(1_000_000, 'x')
    const parts = 64
    let written = 0
    backend.answer = (socket, number) => {
      if (number > 1) {
        socket.write(whole('answer'))
        return
      }
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${part.length * parts}\r\n\r\n`)
      const more = (): void => {
        while (written < parts) {
          written += 1
          if (!socket.write(part)) break
        }
      }
      socket.on('drain', more)
      more()
    }
    const told = backend.call()
    await eventually(() => told.body.length > 0)
    told.controller?.pause()
    // Until nothing moves any more.
    let before = -1
    await eventually(() => {
      const isStill = before === told.body.length
      before = told.body.length
      return isStill
    })
    expect(written).toBeLessThan(parts)
    told.controller?.resume()
    expect((await told.over).length).toBe(part.length * parts)
    expect(await backend.call().over).toBe('answer')
    expect(backend.seen).toHaveLength(1)
  })

  test('that is over while the backend waits leaves a connection that is read', async () => {
    const told = backend.call({}, undefined, (controller) => controller.pause())
    expect(await told.over).toBe('answer')
    expect(await backend.call().over).toBe('answer')
    expect(backend.seen).toHaveLength(1)
  })
})
