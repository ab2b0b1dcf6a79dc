import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { targetOf } from './target.ts'

let folder: string
let env: Record<string, string>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-target-'))
  const profiles = {
    current: 'a',
    profiles: { a: { address: 'http://a', key: 'key-a' }, b: { address: 'http://b', keyFile: join(folder, 'key-b') } },
  }
  await writeFile(join(folder, 'profiles.json'), JSON.stringify(profiles))
  await writeFile(join(folder, 'key-b'), 'key-b\n')
  await writeFile(join(folder, 'key-c'), 'key-c')
  await writeFile(join(folder, 'demo.json'), JSON.stringify({ address: 'http://demo', adminKey: 'key-demo' }))
  env = { TOLLGATE_PROFILES: join(folder, 'profiles.json'), TOLLGATE_DATA_DIR: folder }
})

afterAll(() => rm(folder, { recursive: true, force: true }))

describe('address and credential are', () => {
  test.each([
    ['of the current profile', {}, {}, 'http://a', 'key-a'],
    ['of the profile that the environment names', {}, { TOLLGATE_PROFILE: 'b' }, 'http://b', 'key-b'],
    ['of the environment before those of the profile', {}, { TOLLGATE_KEY: 'key-e' }, 'http://a', 'key-e'],
    [
      'of the environment before the file of the profile',
      {},
      { TOLLGATE_PROFILE: 'b', TOLLGATE_KEY: 'k' },
      'http://b',
      'k',
    ],
    ['of no empty variable', {}, { TOLLGATE_KEY: '', TOLLGATE_ADDRESS: '' }, 'http://a', 'key-a'],
    [
      'of the flag before all',
      { address: 'http://f' },
      { TOLLGATE_ADDRESS: 'http://e', TOLLGATE_KEY: 'k' },
      'http://f',
      'k',
    ],
    ['of no profile for another address', { address: 'http://f' }, {}, 'http://f', ''],
    [
      'of the profile that a flag names, whatever the environment says',
      { profile: 'b' },
      { TOLLGATE_KEY: 'k' },
      'http://b',
      'key-b',
    ],
    ['of the demo without a profile', {}, { TOLLGATE_PROFILES: 'none' }, 'http://demo', 'key-demo'],
    ['of no demo for another address', {}, { TOLLGATE_PROFILES: 'none', TOLLGATE_ADDRESS: 'http://e' }, 'http://e', ''],
  ])('%s', async (_, flags, changes, address, credential) => {
    expect(await targetOf(flags, { ...env, ...changes })).toMatchObject({ address, credential })
  })

  test('of the file that a flag names, before the variable', async () => {
    const target = await targetOf({ keyFile: join(folder, 'key-c') }, { ...env, TOLLGATE_KEY: 'key-e' })
    expect(target.credential).toBe('key-c')
  })

  test('nobody’s when the flag sends another address the demo’s way', async () => {
    const target = await targetOf({ address: 'http://f' }, { ...env, TOLLGATE_PROFILES: 'none' })
    expect(target).toMatchObject({ address: 'http://f', credential: '' })
  })
})
