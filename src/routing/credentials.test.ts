import { mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { testCall } from '../../test/support/invoke.ts'
import { chat } from '../../test/support/payloads.ts'
import { unaryTask } from '../../test/support/practice-dispatch.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { createCredentials } from './credentials.ts'
import { createDispatcher } from './dispatcher.ts'

let folder: string
let file: string
let nowMs: number

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-credentials-'))
  file = join(folder, 'key')
  nowMs = 1_000
})
afterEach(() => rm(folder, { recursive: true, force: true }))

test('a file is trimmed, kept for five seconds, and read anew after that', async () => {
  const credentials = createCredentials({}, () => nowMs)
  await writeFile(file, ' first\n')
  expect(await credentials.resolve(`file:${file}`)).toBe('first')
  await writeFile(file, 'second\n')
  nowMs += 4_999
  expect(await credentials.resolve(`file:${file}`)).toBe('first')
  nowMs += 1
  expect(await credentials.resolve(`file:${file}`)).toBe('second')
})

test('a rotation by a link above the file is seen, as where secrets are mounted', async () => {
  const credentials = createCredentials({}, () => nowMs)
  const link = join(folder, 'current')
  for (const version of ['one', 'two']) {
    await writeFile(join(folder, version), version)
    await symlink(join(folder, version), join(folder, 'next'))
    await rename(join(folder, 'next'), link)
    expect(await credentials.resolve(`file:${link}`)).toBe(version)
    nowMs += 5_000
  }
})

test('the environment is read once: what the process puts there later is nobody’s credential', () => {
  const env: Record<string, string> = { KEY: 'first' }
  const credentials = createCredentials(env, () => nowMs)
  expect(credentials.resolve('env:KEY')).toBe('first')
  expect(credentials.resolve('')).toBeUndefined()
  expect(() => credentials.resolve('env:toString')).toThrow()
  env.KEY = 'second'
  expect(credentials.resolve('env:KEY')).toBe('first')
})

test('a backend that refuses the old one gets the new one with the next call, without a restart', async () => {
  let valid = 'old'
  const backend: Server = createServer((request, response) => {
    request.resume()
    response.statusCode = request.headers.authorization === `Bearer ${valid}` ? 200 : 401
    response.end('{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}')
  })
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  const dispatcher = createDispatcher({
    connectionsPerHost: 1,
    connectTimeoutMs: 1_000,
    maxResponseBytes: 1_024,
    breaker: { failures: 5, windowMs: 10_000, resetMs: 1_000 },
    credentials: createCredentials({}, () => nowMs),
    now: Date.now,
    observer: { breakerChanged: () => {}, attempted: () => {}, credentialRefused: () => {} },
  })
  const url = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1/chat/completions`
  const service = serviceRecord({ endpoints: [endpointRecord({ url, credentialRef: `file:${file}` })] })
  const outcome = async () => {
    const made = await dispatcher.dispatch(service, unaryTask(chat('x'), 'id'), testCall())
    return 'error' in made ? made.error.reason : 'ok'
  }
  try {
    await writeFile(file, 'old')
    expect(await outcome()).toBe('ok')
    valid = 'new'
    await writeFile(file, 'new')
    expect([await outcome(), await outcome()]).toEqual(['BACKEND_CREDENTIAL_REFUSED', 'ok'])
  } finally {
    backend.closeAllConnections()
    backend.close()
    await dispatcher.close()
  }
})
