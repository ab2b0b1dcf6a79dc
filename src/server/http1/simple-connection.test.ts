import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { AnswerHeaders } from '../answer-headers.ts'
import { until } from '../fixture.ts'
import { type OpenedConnection, openConnection, post } from './fixture.ts'
import { restMs } from './simple-connection.ts'
import { request, unusualRequests } from './unusual-requests.ts'

let opened: OpenedConnection
beforeEach(async () => {
  opened = await openConnection()
})
afterEach(() => opened.close())

describe('a simple request', () => {
  test('is handled when all of it is there, wherever it is cut', async () => {
    const bytes = post('{"é":1}')
    for (let at = 1; at < bytes.length; at += 1) {
      await opened.send(bytes.subarray(0, at))
      expect(opened.handled.length).toBe(at - 1)
      await opened.send(bytes.subarray(at))
      expect(opened.handled.length).toBe(at)
      expect(Buffer.from(opened.last().takeBody() ?? []).toString('latin1')).toBe('{"é":1}')
      opened.answer('')
    }
    expect(opened.handedOver).toEqual([])
  })

  test('says what it is', async () => {
    await opened.send(post('abc', ['X-Key: a']))
    const { method, url, path, headers, httpVersion, isHttp2, isBodyOver, body } = opened.last()
    expect({ method, url, path, headers: { ...headers }, httpVersion, isHttp2, isBodyOver }).toEqual({
      method: 'POST',
      url: '/echo',
      path: '/echo',
      headers: { host: 'x', 'x-key': 'a', 'content-length': '3' },
      httpVersion: '1.1',
      isHttp2: false,
      isBodyOver: true,
    })
    expect(Buffer.concat(await body.toArray()).toString()).toBe('abc')
    expect(opened.last().socket.remoteAddress).toBe('127.0.0.1')
    expect(opened.last().connection).toBe(opened.connection.socket)
  })

  test('behind another one waits until the answer to that is out', async () => {
    const chunks = opened.received()
    await opened.send(post('1'))
    await opened.send(post('2'))
    await opened.send(post('3'))
    expect(opened.handled.length).toBe(1)
    expect(opened.connection.isIdle).toBe(false)
    opened.answer('one')
    await until(() => chunks.join('').endsWith('one'))
    // More than one at once is not simple.
    expect(opened.handled.length).toBe(1)
    await until(() => opened.handedOver[0] === `${post('2')}${post('3')}`)
  })

  test('that is alone behind another one is handled after it', async () => {
    await opened.send(post('1'))
    await opened.send(post('2').subarray(0, 10))
    await opened.send(post('2').subarray(10))
    opened.answer('one')
    expect(opened.handled.length).toBe(2)
    expect(opened.last().takeBody()).toEqual(Buffer.from('2'))
    opened.answer('two')
    expect(opened.connection.isIdle).toBe(true)
    expect(opened.handedOver).toEqual([])
  })
})

describe('a connection is handed over with all bytes that were not handled', () => {
  test.each(unusualRequests)('for %s', async (_, bytes) => {
    await opened.send(post('1'))
    opened.answer('one')
    await opened.send(bytes)
    await until(() => opened.handedOver[0]?.length === bytes.length)
    expect(opened.handedOver).toEqual([bytes.toString('latin1')])
    await opened.send(Buffer.from('and on'))
    await until(() => opened.handedOver[0] === `${bytes.toString('latin1')}and on`)
    expect(opened.handled.length).toBe(1)
    opened.connection.socket.destroy()
    await once(opened.connection.socket, 'close')
    expect(opened.closed).toBe(0)
  })

  test('for a request that is longer than one read', async () => {
    const head = request(['POST /echo HTTP/1.1', 'host: x', 'content-length: 65536'])
    await opened.send(head)
    await until(() => opened.handedOver[0] === head.toString('latin1'))
  })

  test.each([
    ['within its head', 20],
    ['within its body', -1],
  ])('for a request that stops %s, after a while', async (_, at) => {
    const part = post('12345').subarray(0, at)
    await opened.send(part)
    opened.connection.look(performance.now() + restMs / 2, 100_000)
    expect(opened.handedOver).toEqual([])
    opened.connection.look(performance.now() + restMs, 100_000)
    await until(() => opened.handedOver[0] === part.toString('latin1'))
  })

  test('for a request that comes in very many pieces', async () => {
    const bytes = post('x'.repeat(200))
    for (const byte of bytes.subarray(0, 100)) await opened.send(Buffer.from([byte]))
    await until(() => opened.handedOver[0]?.length === 100)
  })
})

describe('a connection', () => {
  test('that is idle for its time is closed, and no other', async () => {
    opened.connection.look(performance.now() + 900, 1_000)
    await opened.send(post('1'))
    opened.connection.look(performance.now() + 100_000, 1_000)
    expect(opened.connection.socket.destroyed).toBe(false)
    opened.answer('one')
    opened.connection.look(performance.now() + 900, 1_000)
    expect(opened.connection.socket.destroyed).toBe(false)
    opened.connection.look(performance.now() + 1_000, 1_000)
    expect(opened.connection.socket.destroyed).toBe(true)
    await until(() => opened.closed === 1)
  })

  test('is idle from its answer on, however long that took', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    onTestFinished(() => void vi.useRealTimers())
    await opened.send(post('1'))
    vi.advanceTimersByTime(60_000)
    opened.answer('one')
    opened.connection.look(performance.now() + 999, 1_000)
    expect(opened.connection.socket.destroyed).toBe(false)
    opened.connection.look(performance.now() + 1_000, 1_000)
    expect(opened.connection.socket.destroyed).toBe(true)
  })

  test('takes in no more than a bound while an answer is on its way', async () => {
    await opened.send(post('1'))
    const flood = Buffer.concat(Array.from({ length: 40_000 }, () => post('x'.repeat(200))))
    opened.caller.write(flood)
    await until(() => opened.connection.socket.isPaused())
    for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    expect(opened.connection.socket.bytesRead).toBeLessThan(300_000)
    opened.answer('one')
    await until(() => opened.handedOver[0]?.length === flood.length)
    expect(opened.handedOver[0] === flood.toString('latin1')).toBe(true)
  })

  test('that was full is read on when the answer is out', async () => {
    await opened.send(post('1'))
    const bytes = post('2'.repeat(64))
    await opened.send(bytes.subarray(0, -64))
    for (const byte of bytes.subarray(-64)) await opened.send(Buffer.from([byte]))
    expect(opened.connection.socket.isPaused()).toBe(true)
    opened.answer('one')
    expect(opened.last().takeBody()).toEqual(Buffer.from('2'.repeat(64)))
    opened.answer('two')
    await opened.send(post('3'))
    expect(opened.handled.length).toBe(3)
  })

  test('whose caller leaves during a call tells so, once, and not after the answer', async () => {
    const left: number[] = []
    await opened.send(post('1'))
    opened.last().onLeft(() => left.push(1))
    opened.answer('one')
    await opened.send(post('2'))
    opened.last().onLeft(() => left.push(2))
    expect(opened.last().isGone).toBe(false)
    opened.caller.destroy()
    await until(() => opened.closed === 1)
    expect(left).toEqual([2])
    expect(opened.last().isGone).toBe(true)
    expect(opened.last().left()).toBeUndefined()
    // All of it goes nowhere.
    opened.last().head(200, new AnswerHeaders(), false)
    opened.last().write(Buffer.from('x'))
    opened.last().end(Buffer.from('x'))
  })

  test('whose caller says nothing more during a call is gone, as with Node', async () => {
    let hasLeft = false
    await opened.send(post('1'))
    opened.last().onLeft(() => {
      hasLeft = true
    })
    opened.caller.end()
    await until(() => hasLeft)
    expect(opened.broken).toBe(0)
  })

  test.each([
    ['a request', 1, post('12345').subarray(0, -1)],
    ['nothing', 0, Buffer.alloc(0)],
  ])('that ends within %s is broken %d times', async (_, times, bytes) => {
    await opened.send(bytes)
    opened.connection.socket.on('end', () => opened.connection.look(performance.now() + 100_000, 1_000_000))
    opened.caller.end()
    await until(() => opened.closed === 1)
    expect(opened.handedOver).toEqual([])
    expect(opened.broken).toBe(times)
  })
})
