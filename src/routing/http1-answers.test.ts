import { describe, expect, test } from 'vitest'
import { bytesOf, chunked, everyWay, head, read } from './fixture-answers.ts'
import { goodAnswers } from './good-answers.ts'
import { AnswerReader } from './http1-answers.ts'

describe('is read, whole, byte by byte and however it is cut', () => {
  test.each(goodAnswers)('$name', ({ bytes, isEnded = false, told }) => {
    expect(everyWay(bytesOf(bytes), isEnded)).toMatchObject({ end: 'whole', isReusable: true, ...told })
  })
})

/** Cut off wherever: an answer that ends too early is none. */
const early = goodAnswers.filter(({ isEnded = false }) => !isEnded)

test.each(early)('one that ends too early is none: $name', ({ bytes, told: { body } }) => {
  const all = bytesOf(bytes)
  const { end: isWhole } = read([all], false)
  expect(isWhole).toBe('whole')
  // Up to the last byte that belongs to it.
  let length = all.length
  while (read([all.subarray(0, length - 1)], false).end === 'whole') length -= 1
  for (let at = 0; at < length; at += Math.max(1, Math.floor(length / 200))) {
    const told = read([all.subarray(0, at)], true)
    expect(told.end, `after ${at} bytes`).toBe('broken')
    expect(body ?? told.body).toContain(told.body)
  }
})

test('a reader serves one answer after the other, and keeps nothing of one for the next', () => {
  const told: unknown[] = []
  const reader = new AnswerReader({
    onHead: (status, headers) => told.push([status, headers]),
    onBody: (chunk) => told.push(chunk.toString()),
    onEnd: (trailers, isReusable, keepAliveMs) => told.push([trailers, isReusable, keepAliveMs]),
    onBroken: (error) => told.push(error),
  })
  const next = (text: string): void => {
    reader.begin()
    reader.push(bytesOf(text), text.length)
  }
  next(`${chunked}2;x\r\nab\r\n0\r\nsum: 1\r\n\r\n`)
  next(`HTTP/1.0 404 No\r\nconnection: keep-alive\r\nkeep-alive: timeout=9\r\ncontent-length: 1\r\n\r\nx`)
  next(`${head}content-length: 2\r\n\r\ncd`)
  expect(told).toEqual([
    [200, { 'transfer-encoding': 'chunked' }],
    'ab',
    [{ sum: '1' }, true, undefined],
    [404, { connection: 'keep-alive', 'keep-alive': 'timeout=9', 'content-length': '1' }],
    'x',
    [{}, true, 9_000],
    [200, { 'content-length': '2' }],
    'cd',
    [{}, true, undefined],
  ])
})

test('chunks that come together are told together', () => {
  let times = 0
  const reader = new AnswerReader({
    onHead: () => {},
    onBody: (chunk) => {
      times += 1
      expect(chunk.toString()).toBe('abcdef')
    },
    onEnd: () => {},
    onBroken: (error) => expect.fail(error.message),
  })
  const bytes = bytesOf(`${chunked}1\r\na\r\n4\r\nbcde\r\n1\r\nf\r\n0\r\n\r\n`)
  reader.begin()
  reader.push(bytes, bytes.length)
  expect(times).toBe(1)
})
