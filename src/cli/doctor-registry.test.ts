import { afterEach, beforeEach, expect, test } from 'vitest'
import { answering, type MadeRegistry, type RegistryMood, startMadeRegistry } from '../../test/support/made-registry.ts'
import { loadConfig } from '../config.ts'
import { lookAtRegistry } from './doctor-registry.ts'

let registry: MadeRegistry

beforeEach(async () => {
  registry = await startMadeRegistry()
})

afterEach(async () => {
  await registry.close()
})

const look = (more: Readonly<Record<string, string>> = {}) =>
  lookAtRegistry(
    loadConfig({ REGISTRY_URL: registry.url, REGISTRY_API_KEY: 'k', REGISTRY_MODE: 'source', ...more }, 'serve'),
  )

test('a registry that lists services is well, and one that is not named is not asked', async () => {
  registry.entries = [{ id: 'x', name: 'a', version: '1.0.0' }]
  expect(await look()).toEqual([{ status: 'ok', detail: `${registry.url} lists 1 services` }])
  expect(await lookAtRegistry(loadConfig({}, 'serve'))).toEqual([{ status: 'ok', detail: 'not configured' }])
})

test.each<[what: string, mood: RegistryMood, more: Record<string, string>, status: string, text: string]>([
  ['refuses the key', answering(403), {}, 'failed', 'REGISTRY_API_KEY'],
  ['fails', answering(500), {}, 'failed', 'HTTP 500'],
  ['lists nothing and is the source', answering(404), {}, 'failed', 'it lists no services'],
  ['lists nothing and is only told', answering(404), { REGISTRY_MODE: 'publish' }, 'warning', 'it lists no services'],
  ['lists other things', answering(200, [1, 2]), {}, 'warning', '2 things that are no services'],
])('one that %s is told with what to do', async (_, mood, more, status, text) => {
  registry.setMood(mood)
  const [finding] = await look(more)
  expect(finding).toMatchObject({ status, detail: expect.stringContaining(text), remedy: expect.any(String) })
})

test('what belongs to it is looked at, too', async () => {
  const endpoints = { REGISTRY_ENDPOINT_CREDENTIALS: 'https://llm.example=env:LLM_KEY' }
  expect((await look(endpoints))[1]).toMatchObject({ status: 'failed', detail: expect.stringContaining('env:LLM_KEY') })
  expect(await look({ ...endpoints, LLM_KEY: 'x' })).toHaveLength(1)
  expect((await look({ REGISTRY_MODE: 'both' }))[1]).toMatchObject({
    status: 'warning',
    remedy: expect.stringContaining('ADVERTISED_URL'),
  })
  expect(await look({ REGISTRY_MODE: 'both', ADVERTISED_URL: 'https://gate.example' })).toHaveLength(1)
})
