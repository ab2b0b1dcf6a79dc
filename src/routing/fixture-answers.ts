import type { IncomingHttpHeaders } from 'node:http'
import fc from 'fast-check'
import { expect } from 'vitest'
import { AnswerReader } from './http1-answers.ts'

/** What a reader told of an answer. */
export interface Told {
  status: number
  headers: IncomingHttpHeaders
  body: string
  trailers: IncomingHttpHeaders | undefined
  /** Undefined while it waits for more. */
  end: 'whole' | 'broken' | undefined
  /** Of a whole one: whether its connection may have another request. */
  isReusable: boolean
  keepAliveMs: number | undefined
  why: string
}

/** How most answers begin. */
export const head = 'HTTP/1.1 200 OK\r\n'
export const chunked = `${head}transfer-encoding: chunked\r\n\r\n`

/** So many fields. */
export const many = (n: number): string => Array.from({ length: n }, (_, at) => `x-${at}: y\r\n`).join('')

/** Reads an answer that comes in these parts, and after which the connection ends or stays. */
export function read(parts: readonly Buffer[], isEnded: boolean): Told {
  const told: Told = {
    status: 0,
    headers: {},
    body: '',
    trailers: undefined,
    end: undefined,
    isReusable: false,
    keepAliveMs: undefined,
    why: '',
  }
  const chunks: Buffer[] = []
  const reader = new AnswerReader({
    onHead(status, headers) {
      expect(told.status, 'one head').toBe(0)
      told.status = status
      told.headers = headers
    },
    onBody(chunk) {
      expect(told.end, 'the body comes before the end').toBe(undefined)
      chunks.push(chunk)
    },
    onEnd(trailers, isReusable, keepAliveMs) {
      expect(told.end, 'one end').toBe(undefined)
      Object.assign(told, { end: 'whole', trailers, isReusable, keepAliveMs })
    },
    onBroken(error) {
      expect(told.end, 'one end').toBe(undefined)
      Object.assign(told, { end: 'broken', why: error.message })
    },
  })
  reader.begin()
  for (const part of parts) {
    // Where more comes behind the answer, its connection is given up.
    if (told.end === 'whole') told.isReusable = false
    // What is read into is larger than what was read, and the next read changes it.
    const room = Buffer.alloc(part.length + 8, 'z')
    part.copy(room)
    reader.push(room, part.length)
    room.fill('!')
  }
  if (isEnded) reader.finish()
  return { ...told, body: Buffer.concat(chunks).toString('latin1') }
}

/** Reads an answer as a whole, byte by byte and cut at random, which has to come to the same. */
export function everyWay(bytes: Buffer, isEnded: boolean): Told {
  const whole = read([bytes], isEnded)
  expect(read(byByte(bytes), isEnded), 'byte by byte').toEqual(whole)
  fc.assert(
    fc.property(fc.array(fc.nat(bytes.length), { maxLength: 8 }), (places) => {
      expect(read(cut(bytes, places), isEnded)).toEqual(whole)
    }),
    { numRuns: 30 },
  )
  return whole
}

export function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.filter((place) => place < bytes.length).toSorted((a, b) => a - b), bytes.length]
  return places.slice(1).map((place, n) => bytes.subarray(places[n], place))
}

function byByte(bytes: Buffer): Buffer[] {
  return Array.from(bytes, (byte) => Buffer.from([byte]))
}
