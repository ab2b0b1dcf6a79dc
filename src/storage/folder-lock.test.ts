import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { lockFolder } from './folder-lock.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-lock-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

it('admits one owner at a time and leaves nothing behind', async () => {
  const unlock = await lockFolder(folder)
  await expect(lockFolder(folder)).rejects.toThrow(`in use by process ${process.pid}`)
  await unlock()
  expect(await readdir(folder)).toEqual([])
  await (await lockFolder(folder))()
})

it.each(['', 'garbage', '999999999 1 boot', `${process.pid} 1 an-earlier-boot`])(
  'is taken over from an owner that is gone: "%s"',
  async (holder) => {
    await writeFile(join(folder, 'lock'), holder)
    await (await lockFolder(folder))()
  },
)
