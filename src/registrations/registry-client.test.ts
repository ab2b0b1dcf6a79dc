import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { answering, type MadeRegistry, type RegistryMood, startMadeRegistry } from '../../test/support/made-registry.ts'
import { createRegistryClient, type RegistryClient } from './registry-client.ts'
import { RegistryError } from './registry-error.ts'

const forever = new AbortController().signal
let registry: MadeRegistry
let client: RegistryClient

beforeEach(async () => {
  registry = await startMadeRegistry()
  client = createRegistryClient({ url: `${registry.url}/llm`, apiKey: 'the-key', timeoutMs: 1_000, retryMinMs: 1 })
})

afterEach(async () => {
  await client.close()
  await registry.close()
})

const entry = (i: number) => ({ id: `id-${i}`, name: `service-${i}`, version: '1.0.0', metadata: {} })
const entries = (count: number) => Array.from({ length: count }, (_, i) => entry(i))

async function failure(work: Promise<unknown>): Promise<RegistryError> {
  const error = await work.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  )
  if (error instanceof RegistryError) return error
  throw error
}

describe('a list', () => {
  test('is read page by page, with the key', async () => {
    registry.entries = entries(450)
    const { entries: read, nameless } = await client.list(forever)
    expect(read.map(({ id }) => id)).toEqual(registry.entries.map(({ id }) => id))
    expect(nameless).toBe(0)
    expect(registry.asked.map(({ path, apiKey }) => [path, apiKey])).toEqual(
      Array.from({ length: 3 }, () => ['/llm/api/v1/services', 'the-key']),
    )
  })

  test('may be an array, and what in it is no entry is counted', async () => {
    registry.setMood(answering(200, [entry(1), null, 'x', { id: 'no-name' }, { ...entry(2), metadata: 'none' }]))
    const { entries: read, nameless } = await client.list(forever)
    expect(read.map(({ id, metadata }) => [id, metadata])).toEqual([
      ['id-1', {}],
      ['id-2', {}],
    ])
    expect(nameless).toBe(3)
  })

  test('is attempted again where a page failed, and no more than three times', async () => {
    registry.entries = entries(1)
    registry.setMood((asked, response) => registry.asked.length < 3 && answering(503)(asked, response))
    expect((await client.list(forever)).entries).toHaveLength(1)
    expect(registry.asked).toHaveLength(3)
    registry.setMood(answering(500))
    expect((await failure(client.list(forever))).message).toBe('HTTP 500')
    expect(registry.asked).toHaveLength(6)
  })

  const endless: RegistryMood = (asked, response) =>
    answering(200, { services: [entry(registry.asked.length)], next_page_token: 'again' })(asked, response)
  const growing: RegistryMood = (asked, response) => {
    const services = entries(4_000)
    return answering(200, { services, next_page_token: String(registry.asked.length) })(asked, response)
  }
  const huge: RegistryMood = (_, response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    const chunk = Buffer.alloc(1_048_576, 32)
    const pour = (): void => {
      while (!response.destroyed && response.write(chunk));
      if (!response.destroyed) response.once('drain', pour)
    }
    pour()
    return true
  }
  const slow: RegistryMood = (_, response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    response.write('{"services": [')
    return true
  }
  const cut: RegistryMood = (_, response) => {
    response.socket?.destroy()
    return true
  }

  test.each<[what: string, mood: RegistryMood, kind: RegistryError['kind'], message: string | RegExp]>([
    ['without a good key', answering(401, { error: 'secret words' }), 'key', 'it refuses REGISTRY_API_KEY (HTTP 401)'],
    ['without the right', answering(403), 'key', 'it refuses REGISTRY_API_KEY (HTTP 403)'],
    ['where there is none', answering(404), 'unsupported', 'HTTP 404'],
    ['that is elsewhere', answering(302, {}, { location: '/llm/api/v1/elsewhere' }), 'failed', /^HTTP 302: redirects/],
    ['that is garbage', answering(200, '<html>secret words'), 'failed', 'its answer is no JSON'],
    ['that is none', answering(200, { services: {} }), 'failed', 'its answer is no list of services'],
    ['that says nothing', answering(200, '{}'), 'failed', 'its answer is no list of services'],
    ['that never ends', endless, 'failed', 'its list has no end: a page comes again'],
    ['that is too long', growing, 'failed', 'it lists more than 10000 services'],
    ['that is too large', huge, 'failed', 'its answer has more than 8388608 bytes'],
    ['that never comes', slow, 'failed', 'no answer within 1000 ms'],
    ['that breaks off', cut, 'failed', /./],
  ])('%s fails with what people need to know, and no word of the registry', async (_, mood, kind, message) => {
    registry.setMood(mood)
    const error = await failure(client.list(forever))
    expect(error.kind).toBe(kind)
    expect(error.message).toMatch(message)
    expect(error.message).not.toContain('secret words')
    expect(registry.asked.every(({ path }) => path === '/llm/api/v1/services')).toBe(true)
  })

  test('is not asked for again when its registry wants to be left alone for long', async () => {
    registry.setMood(answering(429, {}, { 'retry-after': '60' }))
    expect(await failure(client.list(forever))).toMatchObject({ message: 'HTTP 429', retryAfterMs: 60_000 })
    expect(registry.asked).toHaveLength(1)
  })

  test('ends with the signal', async () => {
    const leaving = new AbortController()
    registry.setMood((asked, response) => {
      leaving.abort(new Error('the process leaves'))
      return slow(asked, response)
    })
    await expect(client.list(leaving.signal)).rejects.toThrow('the process leaves')
  })
})
