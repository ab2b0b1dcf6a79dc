import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../fixture.ts'
import { startThings, type Things } from './fixture-things.ts'

let things: Things
beforeAll(async () => {
  things = await startThings()
})
afterAll(() => things.close())

describe('a stream', () => {
  test('comes as one JSON object a line', async () => {
    const answer = await things.ask('/things/v1/watch/x')
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson')
    const lines = (await answer.text()).split('\n')
    expect(lines.pop()).toBe('')
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { id: 'x', count: 1 },
      { id: 'x', count: 2 },
    ])
  })

  test('comes as server-sent events to whom accepts them, and says when it ended well', async () => {
    const answer = await things.ask('/things/v1/parts', { headers: { accept: 'text/event-stream, */*;q=0.1' } })
    expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    expect(await answer.text()).toBe('data: {"name":"a","size":0}\n\nevent: end\ndata: {}\n\n')
  })

  test('that is refused before its first message is an ordinary error', async () => {
    const answer = await things.ask('/things/v1/watch/refused', { headers: { accept: 'text/event-stream' } })
    expect(answer.status).toBe(404)
    expect(await answer.json()).toMatchObject({ error: { status: 'NOT_FOUND' } })
  })

  test('that breaks off ends with its error', async () => {
    const lines = (await (await things.ask('/things/v1/watch/breaks')).text()).trimEnd().split('\n')
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { id: 'breaks', count: 1 },
      { error: { code: 503, status: 'UNAVAILABLE', details: [{ reason: 'STORAGE_UNAVAILABLE' }, {}] } },
    ])
    const events = await things.ask('/things/v1/watch/breaks', { headers: { accept: 'text/event-stream' } })
    const last = (await events.text()).trimEnd().split('\n\n').at(-1)
    expect(last).toMatch(/^event: error\ndata: \{"error":\{"code":503,/)
    await until(() => things.ended.at(-1)?.reason === 'STORAGE_UNAVAILABLE')
  })

  test('that meets its deadline ends with its error', async () => {
    const headers = { 'x-request-timeout-ms': '100' }
    const lines = (await (await things.ask('/things/v1/watch/waits', { headers })).text()).trimEnd().split('\n')
    expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ error: { code: 504, status: 'DEADLINE_EXCEEDED' } })
    things.goOn()
  })

  test('whose caller stops reading and leaves is given up', async () => {
    const before = things.left()
    const caller = httpRequest(`${things.server.address}/things/v1/watch/endless`)
    caller.end()
    const [answer] = await once(caller, 'response')
    await once(answer, 'data')
    answer.on('error', () => {})
    answer.destroy()
    await until(() => things.left() === before + 1)
    await until(() => things.server.activeCalls() === 0)
  })

  test('whose caller leaves is given up, and holds no call', async () => {
    await until(() => things.server.activeCalls() === 0)
    const before = things.left()
    const caller = httpRequest(`${things.server.address}/things/v1/watch/waits`)
    caller.end()
    const [answer] = await once(caller, 'response')
    await once(answer, 'data')
    answer.on('error', () => {})
    answer.destroy()
    await until(() => things.ended.at(-1)?.reason === 'CANCELLED')
    things.goOn()
    await until(() => things.server.activeCalls() === 0)
    expect(things.left()).toBe(before + 1)
  })
})
