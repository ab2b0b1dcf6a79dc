import { describe, expect, test } from 'vitest'
import type { TollgateError } from '../errors.ts'
import { callerGone, deadlineExceeded, type Rpc, ServerCall } from './server-call.ts'

const rpc: Rpc = {
  method: undefined,
  name: 'GET /test',
  verb: 'GET',
  path: '/test',
  access: 'public',
  consumerPath: [],
  organizationPath: [],
  longLived: false,
  httpStatusOf: () => 500,
}

const newCall = () => new ServerCall('id', rpc, {}, '127.0.0.1')
const nobody = (): void => {}

describe('the end of a call', () => {
  test('is told once to each listener that did not take itself back', () => {
    const call = newCall()
    const told: string[] = []
    const first = (reason: TollgateError) => told.push(`first ${reason.reason}`)
    const second = (reason: TollgateError) => told.push(`second ${reason.reason}`)
    call.onEnd(first)
    call.onEnd(second)
    call.offEnd(first)
    call.abort(deadlineExceeded(5))
    call.abort(callerGone())
    expect(told).toEqual(['second DEADLINE_EXCEEDED'])
    expect(call.ended).toMatchObject({ reason: 'DEADLINE_EXCEEDED' })
  })

  test('is told at once to whoever listens too late', () => {
    const call = newCall()
    const reason = callerGone()
    call.abort(reason)
    const told: TollgateError[] = []
    call.onEnd((why) => told.push(why))
    expect(told).toEqual([reason])
  })

  test('reaches every listener when one takes another back meanwhile', () => {
    const call = newCall()
    const told: string[] = []
    const second = (): void => void told.push('second')
    call.onEnd(() => call.offEnd(second))
    call.onEnd(second)
    call.abort(callerGone())
    expect(told).toEqual(['second'])
  })

  test('aborts the signal, whether that was asked for before or after', () => {
    const reason = callerGone()
    const before = newCall()
    const { signal } = before
    expect(signal.aborted).toBe(false)
    before.abort(reason)
    const after = newCall()
    after.abort(reason)
    expect([signal.reason, after.signal.reason]).toEqual([reason, reason])
    expect(after.signal).toBe(after.signal)
  })
})

describe('the race with work', () => {
  test('settles as the work does, which is pending until then', async () => {
    const call = newCall()
    const { promise, resolve } = Promise.withResolvers<number>()
    const raced = call.race(promise, nobody)
    expect(call.isSettled).toBe(false)
    resolve(7)
    expect(await raced).toBe(7)
    expect(call.isSettled).toBe(true)
    const failure = new Error('as it is')
    await expect(call.race(Promise.reject(failure), nobody)).rejects.toBe(failure)
  })

  test('is lost when the call ends first; the work stays pending, and its failure is told', async () => {
    const call = newCall()
    const reason = callerGone()
    const { promise, reject } = Promise.withResolvers<number>()
    const late: unknown[] = []
    const raced = call.race(promise, (error) => late.push(error))
    call.abort(reason)
    await expect(raced).rejects.toBe(reason)
    expect(call.isSettled).toBe(false)
    let settled = false
    const settling = call.settled().then(() => {
      settled = true
    })
    await Promise.resolve()
    expect(settled).toBe(false)
    const failure = new Error('too late')
    reject(failure)
    await settling
    expect(late).toEqual([failure])
  })

  test('is lost at once when the call is over', async () => {
    const call = newCall()
    const reason = callerGone()
    call.abort(reason)
    await expect(call.race(Promise.resolve(1), nobody)).rejects.toBe(reason)
  })
})
