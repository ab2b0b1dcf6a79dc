import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../test/support/eventually.ts'
import { endpointRecord } from '../../test/support/registry-records.ts'
import { TollgateError } from '../errors.ts'
import type { KeyStanding } from '../identity/key-verifier.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { type GateStreams, type Heard, hear, startGateStreams, tokensIn } from './gate-stream-support.ts'
import { createOpenCalls } from './open-calls.ts'

let streams: GateStreams
beforeAll(async () => {
  streams = await startGateStreams()
})
beforeEach(() => streams.begin())
afterEach(() => streams.end())
afterAll(() => streams?.stop())

const gone = new TollgateError('CANCELLED', 'gone')

describe('a key that ends after the third token', () => {
  const revoked = new TollgateError('CREDENTIAL_REVOKED', 'revoked')

  /** Streams a call, and lets its key end when three tokens came. */
  async function hearUntilRevoked(service: Partial<ServiceRecord>, fault: string): Promise<Heard> {
    let standing: KeyStanding = { refusal: undefined, expiresAtMs: undefined }
    const openCalls = createOpenCalls({ standingOf: async () => standing, now: Date.now })
    const heard = await hear(streams.ask(fault, { service, openCalls }), (tokens) => {
      if (tokens < 3) return
      standing = { refusal: revoked, expiresAtMs: undefined }
      openCalls.recheck()
    })
    expect(openCalls.size()).toBe(0)
    return heard
  }

  test('with "cancel" ends the call with its reason, and what was delivered is paid', async () => {
    const { text, end, error } = await hearUntilRevoked({ onRevoke: 'cancel' }, 'out=256,pace=100')
    expect([end, error]).toEqual([undefined, revoked])
    const event = await streams.settledAs({
      status: 'cancelled',
      errorReason: 'CREDENTIAL_REVOKED',
      usageSource: 'partial',
    })
    expect(event.tokens.output).toBe(tokensIn(text))
    expect(event.costNanos).toBeGreaterThan(0)
    await eventually(() => streams.practice.backends[0]?.stats().inFlight === 0)
  })

  test('with "finish" changes nothing', async () => {
    const { end, error } = await hearUntilRevoked({ onRevoke: 'finish' }, 'out=20,in=7,pace=20')
    expect([end?.kind, error]).toEqual(['end', undefined])
    await streams.settledAs({ status: 'succeeded', usageSource: 'provider' })
  })
})

describe('a caller that leaves after the third token', () => {
  /** More than there is time for. */
  const endless = 'out=256,pace=100'

  /** Leaves as the server does it: the signal first, then the iterator is given up. */
  async function leaveAfterThree(fault: string, service: Partial<ServiceRecord>): Promise<unknown> {
    const caller = new AbortController()
    const stream = streams.ask(fault, { service, signal: caller.signal })
    let text = ''
    for (let tokens = 0; tokens < 3; tokens = tokensIn(text)) {
      const { value } = await stream.next()
      if (value?.kind === 'pieces') text += Buffer.concat(value.pieces).toString()
    }
    caller.abort(gone)
    return stream.return().catch((error: unknown) => error)
  }

  function aborted() {
    return streams.practice.log().filter(({ outcome }) => outcome === 'aborted')
  }

  test('with "cancel" ends the backend’s call, and pays what was delivered', async () => {
    const before = aborted().length
    expect(await leaveAfterThree(endless, { onDisconnect: 'cancel' })).toBe(gone)
    const [call] = await eventually(() => aborted().length > before && aborted().slice(before))
    const event = await streams.settledAs({ status: 'cancelled', errorReason: 'CANCELLED', usageSource: 'partial' })
    expect(event.tokens.output).toBeGreaterThanOrEqual(3)
    expect(event.tokens.output).toBeLessThanOrEqual(call?.deliveredTokens ?? 0)
    expect(streams.practice.backends[0]?.stats().inFlight).toBe(0)
  })

  test('with "drain" lets the backend end, and pays for all of it', async () => {
    const before = aborted().length
    await leaveAfterThree('out=20,in=7,pace=20', { onDisconnect: 'drain', drainLimitMs: undefined })
    const event = await streams.settledAs({ status: 'succeeded', usageSource: 'provider' })
    expect(event.tokens).toMatchObject({ input: 7, output: 20 })
    expect(aborted()).toHaveLength(before)
  })

  test('with "drain" for a while lets the backend go on so long, and pays what came until then', async () => {
    const before = aborted().length
    expect(await leaveAfterThree(endless, { onDisconnect: 'drain', drainLimitMs: 500 })).toBe(gone)
    const [call] = await eventually(() => aborted().length > before && aborted().slice(before))
    const event = await streams.settledAs({ status: 'cancelled', usageSource: 'partial' })
    // At a tenth of a second each, some came after the caller had left.
    expect(event.tokens.output).toBeGreaterThan(3)
    expect(event.tokens.output).toBeLessThanOrEqual(call?.deliveredTokens ?? 0)
    expect(call?.deliveredTokens).toBeLessThan(256)
  })

  test.each(['cancel', 'drain'] as const)('with "%s", but by its deadline, ends it at once', async (onDisconnect) => {
    const caller = new AbortController()
    const late = new TollgateError('DEADLINE_EXCEEDED', 'late')
    const stream = streams.ask(endless, { service: { onDisconnect }, signal: caller.signal })
    const { text, end, error } = await hear(stream, (tokens) => tokens >= 3 && caller.abort(late))
    expect(end).toBeUndefined()
    expect(error).toBe(late)
    const event = await streams.settledAs({ status: 'deadline_exceeded', usageSource: 'partial' })
    expect(event.tokens.output).toBe(tokensIn(text))
    await eventually(() => streams.practice.backends[0]?.stats().inFlight === 0)
  })
})

describe('a caller that leaves before the first output', () => {
  async function leave(onDisconnect: 'cancel' | 'drain'): Promise<void> {
    const caller = new AbortController()
    const stream = streams.ask('slow-first-token=500,missing-usage,out=20', {
      service: { onDisconnect },
      signal: caller.signal,
    })
    const first = stream.next()
    await eventually(() => streams.practice.backends[0]?.stats().inFlight === 1)
    caller.abort(gone)
    await Promise.allSettled([first, stream.return()])
    await eventually(() => streams.practice.backends[0]?.stats().inFlight === 0)
  }

  test('pays nothing with "cancel"', async () => {
    await leave('cancel')
    await streams.settledAs({ status: 'cancelled', usageSource: 'none', attempt: 1, costNanos: 0 })
  })

  test('pays all of it with "drain"', async () => {
    await leave('drain')
    expect((await streams.settledAs({ status: 'succeeded', usageSource: 'estimated' })).tokens.output).toBe(20)
  })
})

test('a reader that never reads on holds its backend back, and is recorded when it is given up', async () => {
  const event = `data: {"choices":[{"index":0,"delta":{"content":"${'x'.repeat(100_000)}"}}]}\n\n`
  const most = 600
  let written = 0
  const left = new AbortController()
  const backend = createServer(async (request, response) => {
    request.resume()
    response.on('close', () => left.abort())
    for (; written < most && !left.signal.aborted; written += 1) {
      if (!response.write(event)) await once(response, 'drain', left).catch(() => {})
    }
    response.end()
  })
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  try {
    const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1/chat/completions`
    const caller = new AbortController()
    const endpoints = [endpointRecord({ url, idleTimeoutMs: 1_000 })]
    const stream = streams.ask('', { service: { endpoints }, signal: caller.signal })
    await stream.next()
    await stable(() => written)
    // What fits into the sockets, and little more, of 60 MB.
    expect(written).toBeLessThan(most / 2)
    caller.abort(new TollgateError('DEADLINE_EXCEEDED', 'late'))
    await eventually(() => left.signal.aborted)
    await expect(stream.return()).rejects.toMatchObject({ reason: 'DEADLINE_EXCEEDED' })
    await streams.settledAs({ status: 'deadline_exceeded', usageSource: 'partial' })
  } finally {
    backend.closeAllConnections()
    backend.close()
  }
})

/** Waits until a figure has not changed for a while. */
async function stable(figure: () => number): Promise<void> {
  let last = Number.NaN
  let unchanged = 0
  await eventually(() => {
    unchanged = figure() === last ? unchanged + 1 : 0
    last = figure()
    return unchanged > 20
  })
}
